// One task for each version and architecture, then images of what they built: with functions, conditions, imports.
local lib = import 'lib/steps.libsonnet';

local runtime(version, arch) = {
  type: 'pod',
  arch: arch,
  containers: [{ image: 'python:' + version + '-slim' }],
};

local build(version, arch) = {
  name: 'build %s %s' % [version, arch],
  runtime: runtime(version, arch),
  environment: { PIP_NO_INPUT: '1' },
  steps: [{ type: 'clone' }] + lib.cached('requirements.txt', '/root/.cache/pip', [
    { type: 'run', command: 'make wheel' },
  ]) + [
    { type: 'save_to_workspace', contents: [{ source_dir: './dist', dest_dir: '/dist/', paths: ['*.whl'] }] },
  ],
};

{
  runs: [
    {
      name: 'build and publish',
      tasks: std.flattenArrays([
        [build(version, arch) for arch in ['amd64', 'arm64']]
        for version in ['3.11', '3.12']
      ]) + [
        {
          name: 'publish',
          runtime: { containers: [{ image: 'python:3.12', privileged: true, entrypoint: 'sleep inf' }] },
          environment: { TOKEN: { from_variable: 'publish_token' } },
          shell: '/bin/bash -e',
          working_dir: '/publish',
          steps: std.prune([
            { type: 'restore_workspace', dest_dir: '.' },
            if true then { type: 'run', name: 'publish all', command: |||
              ls dist
              twine upload dist/*.whl
            ||| },
          ]),
          approval: true,
          depends: ['build 3.12 amd64', { task: 'build 3.11 amd64', conditions: ['on_success'] }],
          when: { branch: 'main', tag: '#v.*#', ref: { include: ['#refs/pull/\\d+/head#'], exclude: '/wip/' } },
        },
      ],
    },
  ],
}
