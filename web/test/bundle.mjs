// Parts of the console without a browser: a file of `src/`, with what it imports, as a module.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const source = join(dirname(fileURLToPath(import.meta.url)), '../src');

export async function load(file) {
  const [{ text }] = buildSync({ entryPoints: [join(source, file)], bundle: true, format: 'esm', write: false }).outputFiles;
  return import(`data:text/javascript,${encodeURIComponent(text)}`);
}
