// Builds the console into dist/, with the licences of what went in. `--out DIR` builds elsewhere, `--watch` again on each change.
import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { context } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
process.chdir(here); // names and hashes do not depend on where this is called from
const argument = process.argv.indexOf('--out');
const out = argument > 0 ? process.argv[argument + 1] : 'dist';

// Its package ships no licence text; this is its repository's.
const texts = {
  '@microsoft/signalr': `The MIT License (MIT)

Copyright (c) .NET Foundation and Contributors

All rights reserved.

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.`,
};

// What was bundled, with its licence. A package without one ends the build.
function notices(metafile) {
  const packages = new Set();
  for (const output of Object.values(metafile.outputs)) {
    for (const [input, { bytesInOutput }] of Object.entries(output.inputs)) {
      const [, name] = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input) ?? [];
      if (name && bytesInOutput > 0) packages.add(name);
    }
  }
  const parts = [...packages].sort().map((name) => {
    const folder = join('node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const file = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
    const text = file ? readFileSync(join(folder, file), 'utf8') : texts[name];
    if (!text) throw new Error(`${name} has no licence text; find it and put it into build.mjs`);
    return `${name} ${version} (${license})\n\n${text.replaceAll('\r\n', '\n').trim()}\n`;
  });
  return `The console contains these packages.\n\n${parts.join(`\n${'-'.repeat(80)}\n\n`)}`;
}

// Bytes, gzipped, that a browser is sent for a page: what it begins with, and what that loads by itself or, of these sources, later.
const BOUNDS = [
  { page: 'the first page', most: 35_000, of: ['src/pages/orders.tsx'] },
  { page: 'Query', most: 180_000, of: ['src/pages/query.tsx', 'src/editor.ts', 'node_modules/@microsoft/signalr/'] },
];

// A page that has grown beyond its bound ends the build.
function weigh(metafile) {
  const made = Object.entries(metafile.outputs);
  const begins = made.filter(([, { entryPoint }]) => ['src/main.tsx', 'src/style.css'].includes(entryPoint)).map(([path]) => path);
  for (const { page, most, of } of BOUNDS) {
    const later = of.map((source) => {
      const found = made.find(([, { entryPoint }]) => entryPoint?.startsWith(source));
      if (!found) throw new Error(`nothing is made of ${source}, which the bound of ${page} counts`);
      return found[0];
    });
    const files = new Set([...begins, ...later]);
    for (const file of files) {
      for (const { path, kind } of metafile.outputs[file].imports) if (kind === 'import-statement') files.add(path);
    }
    const bytes = [...files, join(out, 'index.html')].reduce((sum, file) => sum + gzipSync(readFileSync(file), { level: 9 }).length, 0);
    console.log(`  ${page}: ${bytes} bytes gzipped, of ${most} at most`);
    if (bytes > most) throw new Error(`${page} is ${bytes} bytes gzipped, ${most} is its bound (build.mjs)`);
  }
}

// Files beside the bundle, once it is there.
const rest = {
  name: 'rest',
  setup(build) {
    build.onStart(() => {
      rmSync(out, { recursive: true, force: true });
      mkdirSync(out, { recursive: true });
    });
    build.onEnd(({ errors, metafile }) => {
      if (errors.length > 0) return;
      for (const file of ['index.html', 'favicon.svg']) copyFileSync(join('src', file), join(out, file));
      writeFileSync(join(out, 'THIRD-PARTY.txt'), notices(metafile));
      weigh(metafile);
    });
  },
};

const build = await context({
  entryPoints: { app: 'src/main.tsx', style: 'src/style.css' },
  outdir: out,
  bundle: true,
  minify: true,
  format: 'esm',
  splitting: true,
  target: 'es2022',
  chunkNames: '[name]-[hash]',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  legalComments: 'none', // THIRD-PARTY.txt has them
  charset: 'utf8',
  metafile: true,
  logLevel: 'info',
  plugins: [rest],
});
if (process.argv.includes('--watch')) {
  await build.watch();
} else {
  await build.rebuild();
  await build.dispose();
}
