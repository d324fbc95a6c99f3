// Child processes that cannot outlive the test, however it ends, and whose output is kept.

import { spawn } from 'node:child_process';
import { soon, until } from './wait.mjs';

const MOST_OUTPUT = 200_000;

/** A running program. */
export class Process {
  #child;
  #guard;
  #ended;
  /** What it has written, standard output and error together. */
  output = '';

  constructor(command, args, env = {}, cwd = undefined) {
    // A node takes every variable that begins with TIDEWIRE_ for a setting.
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('TIDEWIRE_'));
    this.#child = spawn(command, args, {
      env: { ...Object.fromEntries(inherited), ...env },
      cwd,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', (text) => {
        this.output = (this.output + text).slice(-MOST_OUTPUT);
      });
    }
    this.#ended = new Promise((resolve) => {
      this.#child.on('error', (error) => {
        this.output += `${command}: ${error.message}\n`;
        resolve({ code: null, signal: null });
      });
      this.#child.on('exit', (code, signal) => resolve({ code, signal }));
    });
    this.#leash();
  }

  /** A shell that waits for the end of a pipe, which this process holds, and then kills. */
  #leash() {
    if (this.#child.pid === undefined) return;
    const script = 'read -r _; kill -9 "$0"';
    const stdio = ['pipe', 'ignore', 'ignore'];
    this.#guard = spawn('sh', ['-c', script, String(this.#child.pid)], { stdio });
    this.#guard.unref();
    this.#guard.stdin.unref();
    this.#guard.stdin.on('error', () => {});
    // Once it has ended, its id may be another's.
    this.#ended.then(() => this.#guard.kill('SIGKILL'));
  }

  get isRunning() {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  signal(name) {
    if (this.isRunning) this.#child.kill(name);
  }

  /** Its exit code and signal, once it has ended. */
  ended(patience = undefined) {
    return soon('the end of a process', this.#ended, patience);
  }

  async kill() {
    this.signal('SIGKILL');
    return this.ended();
  }

  /** Asks until the answer is truthy; fails at once, with the output, when the process ends. */
  async answers(what, ask) {
    try {
      return await until(what, async () => (this.isRunning ? await ask() : 'ended'))
        .then((answer) => {
          if (answer === 'ended') throw new Error(`${what}: the process ended`);
          return answer;
        });
    } catch (error) {
      throw new Error(`${error.message}; it wrote:\n${this.output}`);
    }
  }
}
