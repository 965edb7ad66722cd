// Follows a stream of changes with the npm package `eventsource`, found from the working directory, and writes what it is
// told, a line for each. Coming back is the package's business.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const found = createRequire(process.cwd() + '/').resolve('eventsource');
const { EventSource } = await import(pathToFileURL(found));
// Newer versions of the package do not keep the process alive while they wait to come back.
setInterval(() => {}, 1_000_000);
const source = new EventSource(process.argv[2]);
source.onopen = () => console.log('open');
source.addEventListener('order', (event) => console.log(event.data));
source.addEventListener('overrun', () => console.log('overrun'));
