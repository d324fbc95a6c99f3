// Makes dist/ (the modules and their types, and the whole client as one file that a page can load as it is), and from
// it what is kept in the repository: examples/lib/tidewire.js and the reference in docs/client.md.
//
//   node scripts/build.mjs          makes all
//   node scripts/build.mjs --check  fails where what is kept is out of date
//
// It fails when the client is too large.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { minify } from 'terser';
import { reference } from './reference.mjs';

/** What the client may weigh, minified and compressed: bytes. */
const LIMIT = 6_000;

/** Members that objects of the client have for each other: not in its API, in no frame, and of no browser's objects. */
const INTERNAL = /^(answer|asks|canRenew|failed|failure|joined|patience|places|probe|quiet|receive|remind|renew|settle|tooLarge)$/;

const root = fileURLToPath(new URL('../', import.meta.url));
const repository = fileURLToPath(new URL('../../../', import.meta.url));
const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
const check = process.argv.includes('--check');

/** Writes a file of the repository, or complains that it is not what it should be. */
function keep(path, text) {
  const file = repository + path;
  if (existsSync(file) && readFileSync(file, 'utf8') === text) return;
  if (check) {
    console.error(`${path} is out of date: npm run build --prefix clients/js`);
    process.exitCode = 1;
    return;
  }
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

rmSync(`${root}dist`, { recursive: true, force: true });
execFileSync(`${root}node_modules/.bin/tsc`, ['-p', root], { stdio: 'inherit' });

const { outputFiles: [bundle] } = await build({
  entryPoints: [`${root}src/index.ts`],
  bundle: true,
  format: 'esm',
  target: 'es2022',
  minifySyntax: true,
  write: false,
});
const { code } = await minify(bundle.text, {
  module: true,
  ecma: 2020,
  compress: { passes: 3, unsafe_arrows: true, hoist_funs: true, reduce_funcs: false },
  mangle: { properties: { regex: INTERNAL } },
});
const text = `// tidewire ${version}, made of clients/js\n${code}\n`;
writeFileSync(`${root}dist/tidewire.js`, text);
keep('examples/lib/tidewire.js', text);
keep('docs/client.md', reference(`${root}src`, readFileSync(`${root}scripts/client.md`, 'utf8')));

const size = gzipSync(code, { level: 9 }).length;
console.log(`dist/tidewire.js: ${code.length} bytes, ${size} compressed (limit ${LIMIT})`);
if (size >= LIMIT) {
  console.error('the client is too large');
  process.exitCode = 1;
}
