// A walk through Orders and Operations as a person would take it.
import assert from 'node:assert/strict';
import { createServer, request as forward } from 'node:http';
import { after, before, test } from 'node:test';
import { accessible, browse, picture, playground, until } from './browser.mjs';

let server, browser, open;
before(async () => {
  server = await playground();
  browser = await browse(server.base);
  ({ open } = browser);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const api = async (path) => (await fetch(server.base + path)).json();
const ids = (page) => page.locator('tbody tr td:first-child a').allTextContents();

test('orders move, are filtered, and every address shows the same again', async () => {
  const { page, close } = await open('/');
  await page.waitForURL('**/ui/orders');
  await page.getByRole('region', { name: 'Orders' }).waitFor();
  await page.getByText('connected', { exact: true }).first().waitFor();
  const first = await ids(page);
  assert.equal(first.length, 50);
  assert.equal(new Set(first).size, 50, 'an order is one row');
  await until('new orders come to the top', async () => (await ids(page))[0] !== first[0]);
  // Who points at a row keeps it where it is.
  await page.locator('tbody tr').nth(3).hover();
  const pointed = await ids(page);
  await page.getByRole('button', { name: /new, show/ }).waitFor();
  assert.deepEqual(await ids(page), pointed);
  await page.getByRole('button', { name: /new, show/ }).click();
  await until('they are shown', async () => (await ids(page))[0] !== pointed[0]);

  await page.getByRole('button', { name: /^Delivered/ }).click();
  await page.waitForURL('**/ui/orders?status=Delivered');
  await until('only delivered ones', async () => (await page.locator('tbody tr td:nth-child(3)').allTextContents()).every((status) => status === 'Delivered'));
  await page.reload();
  assert.equal(await page.getByRole('button', { name: /^Delivered/ }).getAttribute('aria-pressed'), 'true');
  await page.getByRole('button', { name: 'Next' }).click();
  await page.waitForURL(/cursor=/);
  await page.goBack();
  await page.waitForURL((url) => !url.search.includes('cursor'));
  await page.getByLabel('Customer', { exact: true }).fill('customer-1');
  await page.keyboard.press('Enter');
  await page.waitForURL(/#customer=customer-1$/);
  await page.getByRole('button', { name: 'Gross' }).click();
  await page.waitForURL(/sort=-totalGross/);
  assert.equal(await page.getByRole('columnheader', { name: 'Gross' }).getAttribute('aria-sort'), 'descending');
  await page.getByLabel('Customer', { exact: true }).fill('nobody');
  await page.keyboard.press('Enter');
  await page.getByText('No order matches.').waitFor();
  await page.getByRole('link', { name: 'Show all' }).click();
  await page.getByRole('region', { name: 'Orders' }).waitFor();
  await accessible(page);
  await picture(page, 'orders');
  await close();
});

test('an order is shown with its lines and its history, and as it was', async () => {
  const { page, close } = await open('/ui/orders/order-1');
  await page.getByRole('heading', { name: 'Lines' }).waitFor();
  const order = await api('/orders/order-1');
  await page.getByText(order.totalGross).first().waitFor();
  const events = page.getByRole('region', { name: 'Events of the order' }).locator('tbody tr');
  // The history is asked for beside the order and may come after it.
  await events.nth(order.lastEventSequence - 1).waitFor();
  assert.equal(await events.count(), order.lastEventSequence);
  const slider = page.getByRole('slider');
  await slider.focus();
  await page.keyboard.press('Home');
  await page.waitForURL(/asOf=1$/);
  const then = await api('/orders/order-1?asOfSequence=1');
  await until('its status of then', async () => (await page.locator('.head .state').textContent()) === then.status);
  await page.reload();
  await page.getByText(`1 of ${order.lastEventSequence}`).waitFor();
  await page.getByRole('button', { name: 'Back to now' }).click();
  await until('its status of now', async () => (await page.locator('.head .state').textContent()) === order.status);
  await page.getByRole('button', { name: /of event 1$/ }).click();
  await page.getByText('OrderCreated').first().waitFor();
  await accessible(page);
  await picture(page, 'order');
  await close();
});

test('every digit is shown as it was sent', async () => {
  const { page, close } = await open('/ui/orders');
  await page.route('**/orders/digits', (route) => route.fulfill({ contentType: 'application/json', body: `{"orderId":"digits","customerId":"","status":null,"currency":"EUR",
    "totalNet":"1.10","totalGross":1.10,"itemCount":0,"lastEventSequence":9223372036854775807,"lastEventId":"e","updatedAt":"2026-01-01T00:00:00Z","taxBasis":"event","anomalies":[],"items":[],"held":null}` }));
  await page.route('**/orders/digits/*', (route) => route.fulfill({ contentType: 'application/json', body: '{"items":[],"pageSize":50}' }));
  await page.getByLabel('Go to order').fill('digits');
  await page.keyboard.press('Enter');
  await page.locator('dd', { hasText: '9223372036854775807' }).waitFor();
  assert.match(await page.locator('.facts .big').first().textContent(), /^1\.10/);
  await page.getByText('empty', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Show the answer as JSON' }).click();
  await page.getByRole('button', { name: 'As text' }).click();
  assert.match(await page.locator('.record pre').textContent(), /"totalGross": 1\.10,/);
  await close();
});

test('a list of a hundred thousand parts is shown a part at a time', async () => {
  const { page, close } = await open('/ui/orders');
  const order = { orderId: 'long', customerId: 'c', status: null, currency: 'EUR', totalNet: '1.10', totalGross: '1.10', itemCount: 0, lastEventSequence: 1, lastEventId: 'e', updatedAt: '2026-01-01T00:00:00Z', taxBasis: 'event', anomalies: [], items: [], held: null };
  await page.route('**/orders/long', (route) => route.fulfill({ json: { ...order, parts: Array.from({ length: 100_000 }, (_, at) => at * 2) } }));
  await page.route('**/orders/long/*', (route) => route.fulfill({ json: { items: [], pageSize: 50 } }));
  await page.getByLabel('Go to order').fill('long');
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Show the answer as JSON' }).click();
  const tree = page.locator('.tree');
  const more = tree.getByRole('button', { name: 'the next 200 of 100,000' });
  await more.waitFor();
  assert.ok((await tree.getByRole('button').count()) < 300);
  await more.press('Enter');
  await until('the first of the next has the focus', () => page.evaluate(() => document.activeElement.textContent === '200: 400'));
  assert.ok((await tree.getByRole('button').count()) < 500);
  await close();
});

test('a held order is seen, repaired with the original beside the replacement, and goes on', async () => {
  // The replacement that is refused, and the look that finds it held no more.
  const { page, close } = await open('/ui/orders', { expected: [/status of 422/, /status of 404/] });
  await page.getByText(/orders are held/).waitFor();
  await page.getByRole('link', { name: 'See what they wait for' }).click();
  await page.getByRole('region', { name: 'Held orders' }).waitFor();
  await accessible(page);
  await picture(page, 'held');
  await page.getByRole('link', { name: 'order-180' }).click();
  await page.getByText(/Event 6 was refused, because it cannot be read/).waitFor();
  await accessible(page);
  await page.getByRole('button', { name: 'Replace …' }).click();
  const replacement = page.getByRole('textbox', { name: 'As it should be' });
  await until('the original stands in it', async () => (await replacement.inputValue()).includes('yesterday'));
  const original = await replacement.inputValue();
  // What is not yet right is said where it stands.
  await replacement.fill('{');
  await page.getByText(/Not JSON yet/).waitFor();
  await replacement.fill(original.replace('"orderId": "order-180",\n', ''));
  await page.getByLabel('What was wrong with it').fill('its time was no time');
  await page.getByRole('button', { name: 'Replace', exact: true }).click();
  await page.getByRole('alert').getByText(/The record cannot be taken/).waitFor();
  await replacement.fill(original.replace(/"occurredAt": \{\s*"when": "yesterday"\s*\}/, '"occurredAt": "2026-11-28T12:00:00Z"'));
  await page.getByLabel('What you have changed').getByText(/\+ "occurredAt"/).waitFor();
  await accessible(page);
  await picture(page, 'replace');
  await page.getByRole('button', { name: 'Replace', exact: true }).dblclick();
  await page.getByText(/The order is not held/).waitFor();
  const decisions = (await api('/ops/decisions?key=order-180')).items;
  assert.equal(decisions.length, 1, 'a double click has one effect');
  assert.equal(decisions[0].action, 'replace');
  await page.getByRole('link', { name: 'See the order' }).click();
  await until('its status has moved on', async () => (await page.locator('.head .state').textContent()) === 'Cancelled');
  await page.getByRole('link', { name: 'Operations' }).click();
  await page.getByRole('link', { name: 'Decisions' }).click();
  await page.getByText('its time was no time').waitFor();
  await accessible(page);
  await close();
});

test('many are decided about only after it is told how many', async () => {
  const { page, close } = await open('/ui/operations/letters');
  await page.getByRole('region', { name: 'Dead letters' }).waitFor();
  await accessible(page);
  await page.getByRole('row', { name: /header x-sequence is missing/ }).getByRole('link').first().click();
  await page.getByText(/header x-sequence is missing/).first().waitFor();
  await page.getByRole('button', { name: 'Bytes' }).click();
  await page.getByLabel('Bytes of the record').getByText('000000').waitFor();
  await accessible(page);
  await picture(page, 'letter');
  await page.getByRole('link', { name: 'All dead letters' }).click();
  // Times are picked in the zone that they are shown in.
  const berlin = (at) => new Intl.DateTimeFormat('sv-SE', { timeZone: 'Europe/Berlin', dateStyle: 'short', timeStyle: 'short' }).format(at).replace(' ', 'T');
  await page.getByRole('button', { name: 'Refused when …' }).click();
  await page.getByLabel('to before').fill(berlin(Date.now() - 3_600_000));
  await page.getByText('No dead letter matches.').waitFor();
  await page.getByLabel('Refused from').fill(berlin(Date.now() - 7_200_000));
  await page.getByLabel('to before').fill(berlin(Date.now() + 3_600_000));
  await page.getByRole('region', { name: 'Dead letters' }).waitFor();
  await page.waitForURL(/from=\d{4}-\d\d-\d\dT\d\d:\d\d:00Z&to=/);
  await page.getByLabel('Refused for').selectOption('missing_sequence');
  await page.waitForURL(/reason=missing_sequence/);
  await page.getByRole('button', { name: 'Skip all that match …' }).click();
  await page.getByLabel('Why', { exact: true }).fill('no number, and nobody misses it');
  await page.getByRole('button', { name: 'Tell how many' }).click();
  await page.getByText('1 match; 1 would be decided').waitFor();
  assert.equal((await api('/ops/dead-letters?reason=missing_sequence')).items.length, 1, 'nothing has changed yet');
  await page.getByRole('button', { name: 'Skip 1' }).click();
  await page.getByText('1 letters decided.').waitFor();
  await page.getByRole('button', { name: 'Done' }).click();
  await page.getByText('No dead letter matches.').waitFor();
  await close();
});

test('a view is rebuilt, compared, switched and rolled back', async () => {
  const { page, close } = await open('/ui/operations', { expected: [/status of 404/, /willReadFrequently/] });
  await page.getByText('Running', { exact: true }).waitFor();
  await page.getByRole('img', { name: /Lag over two minutes/ }).waitFor();
  // The chart is drawn, in the colours of the theme, and its numbers stand in a table too.
  await page.getByRole('img', { name: /Lag and throughput over time/ }).waitFor();
  const drawn = () => page.locator('.plot canvas').evaluate((canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const colours = new Map();
    for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) colours.set(data.slice(at, at + 3).join(), (colours.get(data.slice(at, at + 3).join()) ?? 0) + 1);
    return [...colours].filter(([, pixels]) => pixels > 20).map(([colour]) => colour);
  });
  const accent = { light: '31,95,191', dark: '125,176,255' };
  for (const theme of ['dark', 'light']) {
    await page.getByLabel('Colours').selectOption(theme);
    await until(`the line is drawn in ${theme}`, async () => (await drawn()).includes(accent[theme]));
  }
  await page.getByLabel('Colours').selectOption('system');
  await page.getByText('The same minute by minute').click();
  await page.getByRole('region', { name: 'Lag and throughput by minute' }).locator('tbody tr').first().waitFor();
  await accessible(page);
  await picture(page, 'operations');
  await page.getByRole('link', { name: 'Builds' }).click();
  await page.getByRole('button', { name: 'Rebuild …' }).click();
  await page.getByLabel('Why', { exact: true }).fill('to see what differs');
  // Hours that nobody has written are asked for: they are not 0.
  const hours = page.getByLabel(/^Hours that the build/);
  await hours.fill('');
  await page.getByLabel('Why', { exact: true }).press('Enter');
  await until('the hours are asked for', () => hours.evaluate((field) => field.validity.valueMissing && field === document.activeElement));
  await hours.fill('24');
  await page.getByRole('button', { name: 'Rebuild', exact: true }).click();
  await page.waitForURL(/operations\/builds\/\d+$/);
  await page.getByText('It waits for a word.').waitFor({ timeout: 90_000 });
  await page.getByText('No order differs.').waitFor();
  await accessible(page);
  await picture(page, 'rebuild');
  await page.getByRole('button', { name: /Switch readers to build/ }).click();
  await page.locator('.head .state', { hasText: 'done' }).waitFor({ timeout: 60_000 });
  assert.equal((await api('/ops/views')).items[0].activeBuild, 2);
  await page.getByRole('link', { name: 'All builds' }).click();
  await page.getByText('active, readers read it').waitFor();
  await page.getByRole('button', { name: 'Roll back …' }).click();
  await page.getByLabel('Why', { exact: true }).fill('to see that it can be');
  await page.getByRole('button', { name: 'Roll back', exact: true }).click();
  await page.waitForURL(/operations\/builds\/\d+$/);
  await page.locator('.head .state', { hasText: 'done' }).waitFor({ timeout: 60_000 });
  assert.equal((await api('/ops/views')).items[0].activeBuild, 1);
  await page.getByRole('link', { name: 'All builds' }).click();
  await page.getByRole('button', { name: 'Verify …' }).click();
  await page.getByLabel('Why', { exact: true }).fill('the monthly look');
  await page.getByRole('button', { name: 'Verify', exact: true }).click();
  await page.locator('.head .state', { hasText: 'done' }).waitFor({ timeout: 60_000 });
  await page.getByRole('link', { name: 'All builds' }).click();
  await page.getByRole('region', { name: 'Operations' }).waitFor();
  await accessible(page);
  await page.getByRole('link', { name: 'Audit' }).click();
  await page.getByText('POST /ops/views/rebuild').waitFor();
  await accessible(page);
  await page.getByRole('link', { name: 'Running queries' }).click();
  await page.getByText(/Nothing runs streaming SQL here|No query runs/).waitFor();
  await page.getByRole('link', { name: 'Engines' }).click();
  await page.getByText('Nothing runs streaming SQL here').or(page.getByRole('region', { name: 'Engines' })).waitFor();
  await close();
});

test('all of it goes without a mouse', async () => {
  const { page, close } = await open('/ui/orders');
  await page.getByRole('region', { name: 'Orders' }).waitFor();
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the page');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  await page.keyboard.press('?');
  await page.getByRole('dialog', { name: 'Keys' }).waitFor();
  await accessible(page);
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.placeholder), 'customer-7');
  await page.keyboard.press('Escape');
  await page.locator('main').focus();
  await page.keyboard.press('a');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Pause');
  await page.keyboard.press('l');
  const shown = await ids(page);
  await page.keyboard.press('ArrowDown');
  const id = await page.evaluate(() => document.activeElement.textContent);
  assert.equal(id, shown[1], 'the next row');
  // Where the focus is the moment the new page stands there, before anything is drawn.
  await page.evaluate((id) => {
    const begun = () => [...document.querySelectorAll('h1')].some((heading) => heading.textContent.includes(id));
    new MutationObserver(() => begun() && (window.begins ??= document.activeElement.id)).observe(document.body, { childList: true, characterData: true, subtree: true });
  }, id);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: id }).waitFor();
  assert.equal(await page.evaluate(() => window.begins), 'main', 'the focus goes along');
  // To another page too, whatever was seen of the one before; and to a part of it, where that begins.
  await page.goBack();
  await page.getByRole('region', { name: 'Orders' }).waitFor();
  await page.evaluate(() => window.scrollTo(0, 600));
  await page.getByRole('link', { name: 'Operations' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('region', { name: 'Partitions' }).waitFor();
  assert.deepEqual(await page.evaluate(() => [document.activeElement.id, window.scrollY]), ['main', 0]);
  await page.getByRole('link', { name: 'Builds', exact: true }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Rebuild …' }).waitFor();
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Rebuild …');
  await close();
});

test('the time is told in the chosen zone, and copied as programs read it', async () => {
  const { page, close } = await open('/ui/orders/order-1', { permissions: ['clipboard-read', 'clipboard-write'] });
  const time = page.locator('.facts time');
  await time.waitFor();
  assert.match(await time.textContent(), / CET | CEST /);
  await page.getByLabel('Time zone').selectOption('UTC');
  const iso = await time.getAttribute('datetime');
  assert.ok((await time.textContent()).startsWith(`${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`));
  await page.reload();
  assert.match(await time.textContent(), / UTC /, 'it is kept');
  await page.evaluate(() => getSelection().selectAllChildren(document.querySelector('.facts time')));
  await page.keyboard.press('Control+C');
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), iso);
  await page.getByRole('button', { name: 'Copy as curl: the order' }).click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), `curl '${server.base}/orders/order-1'`);
  // A part of a record is copied by its path or its value, without a mouse.
  await page.getByRole('button', { name: /of event 1$/ }).click();
  await page.locator('.tree button').first().focus();
  const leaf = page.locator('.tree').getByRole('button', { name: /^eventId: / });
  await until('the id has the focus', async () => {
    await page.keyboard.press('ArrowDown');
    return leaf.evaluate((element) => element === document.activeElement);
  });
  await page.keyboard.press('Enter');
  const path = await page.locator('.part code').textContent();
  assert.equal(path, '$.eventId');
  await page.getByRole('button', { name: 'Copy path' }).click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), path);
  const { payload } = (await api('/orders/order-1/events')).items[0];
  await page.getByRole('button', { name: `Copy this: ${path}` }).click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), payload.eventId);
  await close();
});

test('pages are usable on a narrow screen, and small on the way', async () => {
  for (const path of ['/ui/orders', '/ui/orders/order-275', '/ui/operations', '/ui/operations/held', '/ui/operations/letters/3', '/ui/operations/builds']) {
    const { page, close } = await open(path, { viewport: { width: 400, height: 850 } });
    await page.getByRole('heading', { level: 1 }).waitFor();
    await page.locator('table').first().waitFor();
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(over <= 0, `${path} is ${over} px too wide`);
    await close();
  }
  const { page, close } = await open('/ui/orders');
  await page.locator('table').waitFor();
  const bytes = await page.evaluate(() => [...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]
    .filter(({ name }) => new URL(name).pathname.startsWith('/ui/')).reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0));
  assert.ok(bytes > 5_000 && bytes < 35_000, `the first page takes ${bytes} bytes`);
  await close();
});

test('behind a proxy that puts a prefix before all it is the same', async () => {
  const proxy = createServer((request, response) => {
    const path = request.url.replace(/^\/view/, '');
    if (path === request.url) return response.writeHead(404).end();
    const ask = forward(server.base + path, { method: request.method, headers: { ...request.headers, host: new URL(server.base).host } }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    ask.on('error', () => response.destroy());
    response.on('close', () => ask.destroy());
    return request.pipe(ask);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const behind = await browse(`http://127.0.0.1:${proxy.address().port}/view`);
  const { page, close } = await behind.open('/ui/orders/order-1');
  await page.getByRole('heading', { name: 'Lines' }).waitFor();
  await page.getByRole('link', { name: 'All orders' }).click();
  await page.waitForURL('**/view/ui/orders');
  await page.locator('table').waitFor();
  await page.getByText('connected', { exact: true }).first().waitFor();
  await page.getByRole('link', { name: 'Operations' }).click();
  await page.getByText('Running', { exact: true }).waitFor();
  await close();
  await behind.close();
  proxy.closeAllConnections();
  proxy.close();
});

test('what is not there and what fails says so, and what was seen stays', async () => {
  const failing = [/Failed to load resource/];
  const { page, close } = await open('/ui/nowhere', { expected: failing });
  await page.getByRole('heading', { name: 'There is no such page' }).waitFor();
  await page.goto(`${server.base}/ui/orders/no-such-order`);
  await page.getByRole('link', { name: 'order_not_found' }).waitFor();
  await accessible(page);
  await page.goto(`${server.base}/ui/operations`);
  await page.getByRole('region', { name: 'Partitions' }).waitFor();
  await page.route('**/ops/lags', (route) => route.abort());
  await page.getByRole('alert').first().getByText(/StreamView does not answer/).waitFor();
  await page.getByText(/What is shown is as of/).first().waitFor();
  await page.getByRole('region', { name: 'Partitions' }).waitFor();
  await page.unroute('**/ops/lags');
  await page.getByRole('alert').waitFor({ state: 'detached' });
  // A part that is gone, as after an update.
  await page.route('**/ui/orders-*.js', (route) => route.fulfill({ status: 404 }));
  await page.getByRole('link', { name: 'Orders', exact: true }).click();
  await page.getByText(/This part of the console could not be loaded/).waitFor();
  await close();
});
