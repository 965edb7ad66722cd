// A server that is killed and started again under an open page: it is told, it heals by itself, and no order is lost or doubled.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { browse, freePort, playground, run, until } from './browser.mjs';

let source, server, browser, open, base, start;
before(async () => {
  // The playground goes on applying orders; what is killed is a second instance that only serves.
  source = await playground();
  const port = await freePort();
  base = `http://127.0.0.1:${port}`;
  const env = {
    STREAMVIEW_HTTP__BIND: `127.0.0.1:${port}`,
    STREAMVIEW_DATABASE__URL: source.database,
    STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS: source.kafka,
    STREAMVIEW_KAFKA__TOPIC_IDS: 'false',
    STREAMVIEW_KAFKA__ALLOW_COMPACTED: 'true',
  };
  start = () => run(['serve', '--only', 'api'], env, /serving http/);
});
after(async () => {
  await browser?.close();
  await server?.stop('SIGKILL');
  source?.signal('SIGCONT');
  await source?.stop();
});

test('a cut is told, heals by itself, and loses and doubles no order', async () => {
  server = await start();
  browser = await browse(base);
  ({ open } = browser);
  const { page, close } = await open('/ui/orders', { expected: [/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE/] });
  await page.getByText('connected', { exact: true }).first().waitFor();
  await page.locator('table').waitFor();
  await server.stop('SIGKILL');
  const cut = Date.now();
  await page.locator('.connection .state', { hasText: /lost since .*trying again in \d+ s/ }).waitFor({ timeout: 35_000 });
  assert.ok(Date.now() - cut < 35_000);
  assert.equal(await page.locator('tbody tr').count(), 50, 'what was seen stays');
  // Most of what is shown changes meanwhile; then nothing does any more, that would mend a row which has missed its change.
  const before = new Map(await rows(page));
  await until('orders go on meanwhile', async () => {
    const { items } = await (await fetch(`${source.base}/orders?pageSize=50`)).json();
    return items.filter(({ orderId, lastEventSequence }) => before.get(orderId) !== String(lastEventSequence)).length >= 30;
  });
  server = await start();
  source.signal('SIGSTOP');
  await page.getByText('connected', { exact: true }).first().waitFor({ timeout: 60_000 });
  // The page shows what the API has, row by row, once it has caught up.
  await until('the page shows the orders of the API', async () => {
    const [shown, told] = [await rows(page), (await (await fetch(`${base}/orders?pageSize=50`)).json()).items];
    assert.equal(new Set(shown.map(([id]) => id)).size, shown.length, 'no order twice');
    const events = new Map(shown);
    return shown.length === told.length && told.slice(0, 45).every(({ orderId, lastEventSequence }) => events.get(orderId) === String(lastEventSequence));
  });
  await close();
});

const rows = (page) => page.locator('tbody tr').evaluateAll((rows) => rows.map((row) => [row.dataset.order, row.children[6].textContent]));
