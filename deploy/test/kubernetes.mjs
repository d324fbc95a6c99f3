// The manifests of deploy/kubernetes: what they say to each other and to the node, and their schemas by the PyPI package
// kubernetes-validate. Without the means to get that it says so and checks the rest.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { python } from '../../clients/tests/lib/python.mjs';
import { atEnd, check, ensure, main, same } from './harness.mjs';

const packages = createRequire(new URL('../../clients/tests/package.json', import.meta.url));
const { parse, parseAllDocuments } = packages('yaml');
const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = join(root, 'deploy/kubernetes');
const binary = process.env.TIDEWIRE_BIN ?? join(root, 'target/debug/tidewire');
/** As of which versions the schemas must fit. */
const VERSIONS = ['1.30', '1.37'];

const read = (name) => readFileSync(join(folder, name), 'utf8');
const kustomization = parse(read('kustomization.yaml'));
const objects = kustomization.resources.flatMap((name) => parseAllDocuments(read(name)).map((one) => one.toJS()));
const the = (kind) => objects.find((one) => one.kind === kind);
const deployment = the('Deployment');
const pod = deployment.spec.template;
const [container] = pod.spec.containers;
const seconds = (text) => Number(/^(\d+)s$/.exec(text)[1]);

/** The validator's interpreter, unless it cannot be had. */
function validator() {
  try {
    return python(join(root, 'deploy/test/requirements.txt'));
  } catch (error) {
    console.log(`kubernetes: skipped, without kubernetes-validate no schemas (${error.message.split('\n')[0]})`);
    return undefined;
  }
}

main(async () => {
  await check('kustomize takes every file, and there is no other', async () => {
    const files = readdirSync(folder).filter((name) => name.endsWith('.yaml') && name !== 'kustomization.yaml');
    same([...kustomization.resources].sort(), files.sort());
    for (const name of kustomization.configMapGenerator.flatMap(({ files: of }) => of)) read(name);
    same(kustomization.images.map(({ name }) => name), [container.image], 'the image');
  });

  await check('selectors find the pods, ports have names that exist', async () => {
    const labels = pod.metadata.labels;
    const selectors = [
      deployment.spec.selector.matchLabels, the('Service').spec.selector,
      the('PodDisruptionBudget').spec.selector.matchLabels, the('NetworkPolicy').spec.podSelector.matchLabels,
    ];
    for (const selector of selectors) {
      ensure(Object.keys(selector).length > 0, 'a selector of everything');
      for (const [key, value] of Object.entries(selector)) same(labels[key], value, key);
    }
    const ports = new Map(container.ports.map(({ name, containerPort }) => [name, containerPort]));
    const asked = [
      ...['startupProbe', 'readinessProbe', 'livenessProbe'].map((name) => container[name].httpGet.port),
      ...the('Service').spec.ports.map(({ targetPort }) => targetPort),
      ...the('NetworkPolicy').spec.ingress.flatMap(({ ports: of }) => of.map(({ port }) => port)),
    ];
    for (const port of asked) ensure(ports.has(port), `port ${port}`);
    same(Number(pod.metadata.annotations['prometheus.io/port']), ports.get('admin'));
    ensure(the('Service').spec.ports.every(({ targetPort }) => targetPort !== 'admin'), 'the admin listener is in the service');
  });

  await check('names of secret, configuration and account fit', async () => {
    same(container.envFrom.map(({ secretRef }) => secretRef.name), [the('Secret').metadata.name]);
    same(pod.spec.volumes.map(({ configMap }) => configMap.name), kustomization.configMapGenerator.map(({ name }) => name));
    same(pod.spec.serviceAccountName, the('ServiceAccount').metadata.name);
    same(kustomization.namespace, the('Namespace').metadata.name);
    // Else a node finds TIDEWIRE_PORT and the like, and refuses them.
    same(pod.spec.enableServiceLinks, false);
  });

  await check('there is time for the drain', async () => {
    const drain = seconds(/^time = "(.*)"/m.exec(read('tidewire.toml'))[1]);
    const { preStop } = container.lifecycle;
    ensure(pod.spec.terminationGracePeriodSeconds >= preStop.sleep.seconds + drain + 5, 'terminationGracePeriodSeconds');
  });

  if (existsSync(binary)) {
    await check('a node takes the configuration, and refuses the secret as it stands', async () => {
      const empty = mkdtempSync(join(tmpdir(), 'tidewire-kubernetes-'));
      atEnd(async () => rmSync(empty, { recursive: true, force: true }));
      const secret = the('Secret').stringData;
      const tell = (changes) => spawnSync(binary, ['check', '--config', join(folder, 'tidewire.toml')],
        { cwd: empty, env: { PATH: process.env.PATH, ...secret, ...changes }, encoding: 'utf8' });
      const good = tell({ TIDEWIRE_AUTH__JWT__SECRET: '0123456789abcdef'.repeat(4) });
      same(good.status, 0, good.stderr);
      ensure(tell({}).status !== 0, 'with change-me as the secret');
    });
  } else {
    console.log(`(no ${binary}: the configuration is not checked)`);
  }

  const interpreter = validator();
  if (!interpreter) return;
  const validate = (version, files, input) => spawnSync(interpreter,
    ['-m', 'kubernetes_validate', '--strict', '--quiet', '-k', version, ...files], { encoding: 'utf8', cwd: folder, input });
  for (const version of VERSIONS) {
    await check(`each manifest fits its schema in Kubernetes ${version}, and a wrong one does not`, async () => {
      const { status, stdout, stderr } = validate(version, kustomization.resources);
      same(status, 0, stdout + stderr);
      const wrong = validate(version, ['-'], read('deployment.yaml').replace('replicas: 3', 'replica: 3'));
      ensure(wrong.status !== 0, 'a wrong member is not noticed');
    }, 120);
  }
  if (spawnSync('kubectl', ['version', '--client']).status !== 0) return;
  await check('so does what kustomize makes of them', async () => {
    const made = spawnSync('kubectl', ['kustomize', folder], { encoding: 'utf8' });
    same(made.status, 0, made.stderr);
    const { status, stdout, stderr } = validate(VERSIONS.at(-1), ['-'], made.stdout);
    same(status, 0, stdout + stderr);
  }, 60);
});
