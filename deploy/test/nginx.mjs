// The test of nginx/: first its rules against scripted nodes, then streams with real ones, a
// rolling restart under load, and a browser whose node is killed.
// Run by scripts/nginx-test.

import { main } from './harness.mjs';
import { browser } from './nginx-browser.mjs';
import { nodes } from './nginx-nodes.mjs';
import { rolling } from './nginx-rolling.mjs';
import { rules } from './nginx-rules.mjs';

main(async () => {
  await rules();
  await nodes();
  await rolling();
  await browser();
});
