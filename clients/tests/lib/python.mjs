// A Python with the packages of a requirements.txt, in a folder of the user's cache.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const own = fileURLToPath(new URL('../python/requirements.txt', import.meta.url));

/** Path of its interpreter; made when it is not there yet. Without a file: with what these tests use. */
export function python(requirements = own) {
  const base = execFileSync('python3', ['-c', 'import sys; print(sys.executable, sys.version)']);
  const version = createHash('sha256').update(base).update(readFileSync(requirements)).digest('hex');
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'tidewire');
  const folder = join(cache, `python-${version.slice(0, 16)}`);
  const interpreter = join(folder, 'bin/python');
  if (!existsSync(join(folder, 'complete'))) {
    mkdirSync(cache, { recursive: true });
    rmSync(folder, { recursive: true, force: true });
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check'];
    execFileSync('python3', ['-m', 'venv', folder], { stdio: 'inherit' });
    execFileSync(interpreter, [...pip, '-r', requirements], { stdio: 'inherit' });
    writeFileSync(join(folder, 'complete'), '');
  }
  return interpreter;
}
