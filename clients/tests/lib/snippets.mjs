// The code of a page of docs/, run as a reader would: from a folder of its own in which the packages are installed,
// against a node and a Redis that are this section's alone.
//
// A block that is preceded by a comment is run:
//
//   <!-- snippet NAME -->                        it runs to its end, and ends well
//   <!-- snippet NAME; stays -->                 it subscribes, and goes on while the ones below it run
//   <!-- snippet NAME; listens -->               an application of the reader's, at port 3000; it says so when it is there
//   <!-- snippet NAME; prints TEXT -->           it prints TEXT, at the end of the section at the latest
//   <!-- snippet NAME; delivers TEXT -->         a subscriber of `news` gets a message with TEXT in it
//   <!-- snippet NAME; config -->                TOML: the node of this section has it
//
// Every block of a language that could be run must have one, or `<!-- not run: WHY -->`.

import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BINARY } from './node.mjs';
import { python } from './python.mjs';

const repository = fileURLToPath(new URL('../../../', import.meta.url));
const BLOCK = /(?:^<!-- (snippet|not run:) ?(.*?) -->\n+)?^```(\w*)\n([\s\S]*?)^```$/gm;

/** What runs a language: the file's name, and the command with it. */
const RUNTIMES = {
  js: { file: 'snippet.mjs', command: (file) => [process.execPath, ['--import', './globals.mjs', file]] },
  python: { file: 'snippet.py', command: (file) => [python(), ['-u', file]] },
  sh: { file: 'snippet.sh', command: (file) => ['bash', ['-euo', 'pipefail', file]] },
  php: { file: 'snippet.php', needs: 'php', command: (file) => ['php', [file]] },
  go: { file: 'main.go', needs: 'go', command: (file) => ['go', ['run', file]] },
};

/** The sections (`##`) of a page of docs/ that have snippets: `{title, config, snippets}`. */
export function sections(page) {
  const text = readFileSync(join(repository, 'docs', page), 'utf8');
  return text.split(/^## /m).slice(1).map((section) => {
    const title = section.slice(0, section.indexOf('\n'));
    const found = [...section.matchAll(BLOCK)].map(([, kind, about, language, code]) => {
      const runs = language in RUNTIMES || language === 'toml';
      if (!kind && runs) throw new Error(`${page}, ${title}: a block of ${language} that nothing runs:\n${code}`);
      return kind === 'snippet' ? { ...options(about), language, code } : undefined;
    }).filter(Boolean);
    const config = found.filter((one) => one.config).map(({ code }) => code).join('\n');
    return { title, config, snippets: found.filter((one) => !one.config) };
  }).filter(({ snippets }) => snippets.length > 0);
}

function options(about) {
  const [name, ...rest] = about.split('; ');
  const given = rest.map((one) => /^(\S+) ?(.*)$/.exec(one)).map(([, key, value]) => [key, value || true]);
  return { name, ...Object.fromEntries(given) };
}

/** Why a snippet cannot be run here, if so. */
export function lacks({ language, code }) {
  const { needs } = RUNTIMES[language];
  if (!needs) return undefined;
  const found = spawnSync(needs, [language === 'go' ? 'version' : '-v']).status === 0;
  if (!found) return `there is no ${needs} here`;
  if (needs === 'php' && !execFileSync('php', ['-m'], { encoding: 'utf8' }).includes('redis')) return 'php has no extension redis';
  const [module] = /github\.com\/[^"]+/.exec(code) ?? [];
  if (needs === 'go' && module && spawnSync('go', ['list', '-m', `${module}@latest`]).status !== 0) return `go gets no ${module}`;
  return undefined;
}

/** A reader's folder, with the packages. */
export function makeFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'tidewire-docs-'));
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, 'tidewire'), { recursive: true });
  for (const name of ['redis', '@redis', 'ws', 'eventsource']) {
    symlinkSync(join(repository, 'clients/tests/node_modules', name), join(modules, name));
  }
  cpSync(join(repository, 'examples/lib/tidewire.js'), join(modules, 'tidewire/index.js'));
  writeFileSync(join(modules, 'tidewire/package.json'), '{"name":"tidewire","type":"module","exports":"./index.js"}');
  // What a browser, and a newer Node, have of their own.
  const here = (name) => JSON.stringify(join(repository, `clients/tests/node_modules/${name}`));
  writeFileSync(join(folder, 'globals.mjs'), `import { createRequire } from 'node:module';
const require = createRequire(import.meta.url);
globalThis.WebSocket ??= require(${here('ws')});
globalThis.EventSource ??= require(${here('eventsource')}).EventSource;
`);
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** The command that runs a snippet against these, from its folder. */
export function prepare({ language, code, name }, folder, { node, redis, port }) {
  const runtime = RUNTIMES[language];
  const place = join(folder, name);
  mkdirSync(place, { recursive: true });
  const file = join(place, runtime.file);
  const real = code
    .replaceAll('127.0.0.1:8000', node.host)
    .replaceAll('127.0.0.1:6379', `127.0.0.1:${redis.port}`)
    .replaceAll('listen(3000', `listen(${port}`)
    .replaceAll("'127.0.0.1', 6379", `'127.0.0.1', ${redis.port}`)
    .replaceAll('redis-cli ', `redis-cli -p ${redis.port} `);
  writeFileSync(file, real);
  if (language === 'go') {
    execFileSync('go', ['mod', 'init', 'snippet'], { cwd: place, stdio: 'pipe' });
    execFileSync('go', ['mod', 'tidy'], { cwd: place, stdio: 'pipe' });
  }
  const [command, args] = runtime.command(language === 'go' ? '.' : file);
  return { command, args, cwd: language === 'go' ? place : folder, path: [dirname(BINARY), process.env.PATH].join(delimiter) };
}
