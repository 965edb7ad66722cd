// A walk through Query, Streams and Live preview as a person would take it, over a real Kafka and the stand-in for ksqlDB.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessible, browse, engines, picture, textOf, until } from './browser.mjs';

let world, base, browser, open;
const api = async (path, options) => (await fetch(base + path, options)).json();

before(async () => {
  world = await engines({ rate: 40 });
  ({ base } = world);
  browser = await browse(base);
  ({ open } = browser);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

const rows = (page) => page.locator('.grid-body .grid-row');
const total = async (page) => Number(/([\d,]+) rows/.exec(await page.locator('.progress').textContent())[1].replaceAll(',', ''));
const type = async (page, editor, text) => {
  await page.getByRole('textbox', { name: editor, exact: true }).click();
  await page.keyboard.press('Control+A');
  await page.keyboard.type(text);
  await page.keyboard.press('Escape');
};

test('a query is written, refused at its place, run, paused and stopped, and the engine lists it no more', async () => {
  const { page, close } = await open('/ui/query');
  await page.getByText(/A query ends after 5 min, 1,000,000 rows or 256 MiB/).waitFor();
  await page.getByRole('button', { name: 'SELECT * FROM orders' }).waitFor();
  await accessible(page);
  const editor = page.getByRole('textbox', { name: 'SQL', exact: true });
  await editor.click();
  await page.keyboard.type('select ORDER_ID, am');
  await page.locator('.cm-tooltip-autocomplete li', { hasText: 'AMOUNT' }).first().click();
  await page.keyboard.type(' from orders wher AMOUNT > 100');
  // What is wrong is told at its place before anybody runs it.
  await page.getByRole('button', { name: 'line 1, column 42' }).waitFor();
  await accessible(page);
  await type(page, 'SQL', 'select ORDER_ID, PRODUCT, AMOUNT from orders where AMOUNT > 100');
  await page.getByText(/Can run, says the/).waitFor();
  await page.keyboard.press('Control+Enter');
  await until('rows come', async () => (await rows(page).count()) > 10);
  const listed = (await api('/api/queries')).items;
  assert.equal(listed.length, 1);
  assert.equal(listed[0].sqlScript, 'select ORDER_ID, PRODUCT, AMOUNT from orders where AMOUNT > 100');

  await page.getByRole('button', { name: 'Pause' }).click();
  const stood = await rows(page).first().getAttribute('aria-rowindex');
  await page.locator('.progress .state', { hasText: /Paused, [1-9]\d* new/ }).waitFor();
  assert.equal(await rows(page).first().getAttribute('aria-rowindex'), stood, 'what is shown stands still');
  await page.getByRole('button', { name: 'AMOUNT', exact: true }).click();
  assert.equal(await page.getByRole('columnheader', { name: /AMOUNT/ }).getAttribute('aria-sort'), 'ascending');
  const grid = page.getByRole('grid');
  await grid.focus();
  await page.keyboard.press('Home');
  await page.getByRole('complementary', { name: 'The picked row' }).getByText('AMOUNT:').waitFor();
  await page.keyboard.press('ArrowDown');
  assert.equal(await page.locator('.grid-row[aria-selected="true"]').getAttribute('aria-rowindex'), '3');
  await accessible(page);
  await picture(page, 'query');
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.locator('.progress .state', { hasText: /^Stopped, [\d,]+ rows, \d+ s$/ }).waitFor();
  assert.deepEqual((await api('/api/queries')).items, [], 'the engine runs it no more');
  const last = await total(page);
  await until('more is published', async () => (await new Promise((resolve) => setTimeout(resolve, 1000)), true));
  assert.equal(await total(page), last, 'no row came after Stop');

  // The address brings the text again, and how it is shown.
  await page.getByRole('button', { name: 'Current' }).click();
  await page.waitForURL(/view=current/);
  const address = page.url();
  assert.match(address, /#sql=select/);
  await page.reload();
  await until('the text stands there again', async () => (await editor.textContent()).includes('AMOUNT > 100'));
  assert.equal(await page.getByRole('group', { name: 'Queries' }).getByRole('button', { name: 'from orders', exact: true }).count(), 1, 'in one tab');

  // It is kept under a name, found again, and forgotten.
  await page.getByRole('button', { name: 'Saved …' }).click();
  const dialog = page.getByRole('dialog', { name: 'Saved queries' });
  await dialog.getByLabel('Name of the query').fill('dear ones');
  await dialog.getByRole('button', { name: 'Save', exact: true }).click();
  await dialog.getByText('“dear ones” is saved in this browser.').waitFor();
  await accessible(page);
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'New tab' }).click();
  await page.reload();
  await page.getByRole('button', { name: 'Saved (1) …' }).click();
  await dialog.getByRole('button', { name: 'dear ones', exact: true }).click();
  await until('its text stands in the editor', async () => (await editor.textContent()).includes('AMOUNT > 100'));
  await page.getByRole('button', { name: 'Saved (1) …' }).click();
  await dialog.getByRole('button', { name: 'Forget dear ones' }).click();
  await dialog.getByText('No query is saved in this browser yet.').waitFor();
  await page.keyboard.press('Escape');
  // A text that is too long for an address stands in it packed: whoever is sent the link has it.
  const long = `SELECT * FROM orders WHERE ${Array.from({ length: 300 }, (_, at) => `AMOUNT <> ${at}`).join(' AND ')} -- ü`;
  assert.ok(long.length > 4000);
  await editor.fill(long);
  await page.waitForURL(/#packed=/);
  assert.ok(page.url().length < 3000, `the address has ${page.url().length} characters`);
  const other = await open(page.url().slice(base.length));
  await until('the same text', async () => (await other.page.getByRole('textbox', { name: 'SQL', exact: true }).locator('.cm-line').allTextContents()).join('\n') === long);
  await other.close();
  await close();
});

test('every digit of a row is shown, rows replace each other by key, and a limit is said', async () => {
  const { page, close } = await open(`/ui/query#sql=${encodeURIComponent('SELECT ORDER_ID + 9223372036854770000 AS BIG FROM orders LIMIT 3')}`);
  await page.getByRole('button', { name: 'Run', exact: true }).click();
  await page.locator('.progress .state', { hasText: /3 rows/ }).waitFor();
  const first = await rows(page).first().getByRole('gridcell').first().textContent();
  assert.match(first, /^922337203685477\d{4}$/);
  await rows(page).first().click();
  await page.getByRole('complementary', { name: 'The picked row' }).getByText(first).waitFor();

  await page.getByRole('button', { name: 'New tab' }).click();
  await type(page, 'SQL', 'SELECT PRODUCT, COUNT(*) AS N FROM orders GROUP BY PRODUCT');
  await page.keyboard.press('Control+Enter');
  await page.getByRole('button', { name: 'Current' }).click();
  await page.getByText(/rows as they are now, by PRODUCT/).waitFor();
  const products = async () => page.locator('.grid-row [role=gridcell]:first-child').allTextContents();
  await until('several products', async () => (await products()).length > 3);
  assert.equal(new Set(await products()).size, (await products()).length, 'one row for each');
  await accessible(page);
  await picture(page, 'query-current');
  // Who leaves the page stops what runs on it.
  await page.getByRole('link', { name: 'Orders', exact: true }).click();
  await until('it is stopped', async () => (await api('/api/queries')).items.length === 0);
  await close();
});

test('a new run begins with no row picked, and by a key that its rows have', async () => {
  const { page, close } = await open(`/ui/query#sql=${encodeURIComponent('SELECT ORDER_ID, AMOUNT FROM orders LIMIT 5')}`);
  await page.getByRole('button', { name: 'Run', exact: true }).click();
  await page.locator('.progress .state', { hasText: /5 rows/ }).waitFor();
  const picked = page.getByRole('complementary', { name: 'The picked row' });
  await rows(page).nth(2).click();
  await picked.getByText('AMOUNT:').waitFor();
  await page.getByRole('button', { name: 'Current' }).click();
  const key = page.getByLabel('A row for each');
  await key.selectOption('AMOUNT');
  await page.getByText(/rows as they are now, by AMOUNT/).waitFor();
  await type(page, 'SQL', 'SELECT ORDER_ID, PRODUCT FROM orders LIMIT 4');
  await page.keyboard.press('Control+Enter');
  await page.getByRole('columnheader', { name: /PRODUCT/ }).waitFor();
  await page.locator('.progress .state', { hasText: /4 rows/ }).waitFor();
  assert.equal(await picked.count(), 0, 'no row of the run before, under the columns of this one');
  assert.equal(await key.inputValue(), 'ORDER_ID');
  await page.getByText(/rows as they are now, by ORDER_ID/).waitFor();
  await close();
});

test('a query whose page is left, or whose tab is closed, while its text is checked does not begin', async () => {
  const { page, close } = await open('/ui/streams');
  const begun = [];
  page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => begun.push(...String(payload).matchAll(/"target":"ExecuteAdHoc"/g))));
  let asked = 0;
  await page.route('**/api/validate', () => { asked += 1; });
  await page.clock.install();
  await page.goto(`${base}/ui/query#sql=${encodeURIComponent('SELECT ORDER_ID FROM orders')}`);
  const run = page.getByRole('button', { name: 'Run', exact: true });
  const checking = page.getByRole('button', { name: 'Checking …' });
  await run.click();
  await checking.waitFor();
  // What asks by itself while somebody writes asks nothing else, and does not let the query begin.
  await page.clock.runFor(2_000);
  assert.equal(await checking.count(), 1);
  assert.equal(asked, 1);
  await page.getByRole('link', { name: 'Orders', exact: true }).click();
  await page.getByRole('heading', { name: 'Orders', exact: true }).waitFor();
  await page.getByRole('link', { name: 'Query', exact: true }).click();
  await run.waitFor();
  assert.equal(await page.locator('.progress').count(), 0);
  await run.click();
  await checking.waitFor();
  await page.getByRole('button', { name: 'Close from orders' }).click();
  // What begins afterwards is all that has begun.
  await page.unroute('**/api/validate');
  await type(page, 'SQL', 'SELECT PRODUCT FROM orders LIMIT 3');
  await page.keyboard.press('Control+Enter');
  await page.locator('.progress .state', { hasText: /3 rows/ }).waitFor();
  assert.equal(begun.length, 1);
  await close();
});

test('a stream is made of a query, deployed, watched, changed with a plan of what is lost, and deleted', async () => {
  const { page, close } = await open('/ui/streams', { expected: [/status of 409/] });
  await page.getByText('No stream is written down.').waitFor();
  await accessible(page);
  await page.goto(`${base}/ui/query?engine=ksqldb#sql=${encodeURIComponent('SELECT ORDER_ID, AMOUNT FROM orders WHERE AMOUNT > 500')}`);
  await page.getByRole('link', { name: 'Make a stream of this' }).click();
  await page.getByPlaceholder('HighValueOrders').fill('HighValueOrders');
  await page.getByText('view_highvalueorders_…').waitFor();
  await page.getByText('Can run, says the engine.').or(page.getByText('The gate has nothing against it')).waitFor();
  await page.getByRole('button', { name: 'Show its first 10 rows' }).click();
  await page.getByRole('region', { name: 'First rows' }).waitFor();
  await accessible(page);
  await page.getByRole('button', { name: 'Create and deploy' }).dblclick();
  await page.locator('.head .state', { hasText: 'Running' }).waitFor({ timeout: 60_000 });
  const made = (await api('/api/streams')).items;
  assert.deepEqual(made.map(({ name, state, wanted }) => [name, state, wanted]), [['HighValueOrders', 'running', 'running']], 'a double click makes one');
  await accessible(page);
  await picture(page, 'stream');

  await page.getByRole('link', { name: 'Live rows' }).click();
  await until('its rows come', async () => (await rows(page).count()) > 3);
  const cells = await rows(page).first().getByRole('gridcell').allTextContents();
  assert.ok(Number(cells[1]) > 500, cells.join());
  await accessible(page);
  await picture(page, 'live');
  await page.getByRole('link', { name: 'The stream', exact: true }).click();

  await page.getByRole('button', { name: 'Edit …' }).click();
  await type(page, 'New text of the stream', 'SELECT PRODUCT, COUNT(*) AS N FROM orders GROUP BY PRODUCT');
  const plan = page.getByRole('status', { name: 'What would happen' });
  await plan.waitFor();
  await accessible(page);
  await picture(page, 'stream-edit');
  if (/begins anew/.test(await plan.textContent())) {
    await page.getByText('Say first that the state may be lost.').waitFor();
    const beside = await page.getByRole('link', { name: 'deploy the new text beside the old one' }).getAttribute('href');
    assert.match(beside, /streams\/new\?engine=ksqldb#name=HighValueOrders2&sql=SELECT/);
    await page.getByLabel('The state may be lost').check();
  }
  await page.getByRole('button', { name: /^Save/ }).dblclick();
  await page.getByRole('button', { name: 'Edit …' }).waitFor({ timeout: 60_000 });
  await until('the new text runs', async () => {
    const [{ revision, deployedRevision, isSettled, state }] = (await api('/api/streams')).items;
    return revision === 2 && deployedRevision === 2 && isSettled && state === 'running';
  });
  await page.getByRole('link', { name: 'Revisions' }).click();
  await page.getByLabel('What differs').getByText(/\+SELECT PRODUCT/).waitFor();
  await accessible(page);
  await page.getByRole('link', { name: 'Events' }).click();
  await page.getByRole('region', { name: 'Events of the stream' }).waitFor();
  await accessible(page);

  await page.getByRole('button', { name: 'Pause' }).click();
  await page.locator('.head .state', { hasText: 'Paused' }).waitFor();
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.locator('.head .state', { hasText: 'Running' }).waitFor();
  await page.getByRole('link', { name: 'All streams' }).click();
  await page.getByRole('region', { name: 'Streams' }).waitFor();
  const row = page.getByRole('row', { name: /HighValueOrders/ });
  const heads = await page.getByRole('columnheader').allTextContents();
  const told = await until('lag and rate, as the engine tells them', async () => {
    const { lag, recordsPerSecond } = await api(`${made[0].href}/status`);
    const cells = await row.getByRole('cell').allTextContents();
    const shown = [cells[heads.indexOf('Not read yet')], cells[heads.indexOf('Rows/s')]];
    return shown.every((cell, at) => (cell === '–') === ([lag, recordsPerSecond][at] === null)) && shown;
  });
  assert.ok(told.some((cell) => /\d/.test(cell)), `one of them at least: ${told}`);
  await accessible(page);
  await picture(page, 'streams');
  await page.getByRole('link', { name: 'HighValueOrders', exact: true }).click();
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.locator('.head .state', { hasText: 'Stopped' }).waitFor();
  await page.getByRole('button', { name: 'Delete …' }).click();
  const dialog = page.getByRole('dialog');
  await accessible(page);
  await dialog.getByLabel(/Type its name/).fill('HighValueOrders');
  await dialog.getByRole('button', { name: 'Delete', exact: true }).click();
  await dialog.getByText('What stays:').waitFor();
  await dialog.getByRole('button', { name: 'To the streams' }).click();
  await page.getByText('No stream is written down.').waitFor();
  assert.deepEqual((await api('/api/streams')).items, []);
  await close();
});

test('first rows stand under their own columns, whatever these consist of', async () => {
  const { page, close } = await open('/ui/streams');
  await page.route('**/api/validate', (route) => route.fulfill({ json: { valid: true, errors: [], checkedBy: 'engine' } }));
  await page.route('**/api/test/query', (route) => route.fulfill({ json: {
    schema: '`id` STRING, `items` ARRAY<STRUCT<`sku` STRING, `qty` INT>>, `to``tal` DECIMAL(10, 2)', rows: [{ row: { columns: ['a', [{ sku: 'tea', qty: 2 }], '9.90'] } }], end: 'limit', reason: null,
  } }));
  await page.goto(`${base}/ui/streams/new#name=Nested&sql=${encodeURIComponent('SELECT id, items, total FROM orders')}`);
  await page.getByText('Can run, says the engine.').waitFor();
  await page.getByRole('button', { name: 'Show its first 10 rows' }).click();
  const first = page.getByRole('region', { name: 'First rows' });
  await first.waitFor();
  assert.deepEqual(await first.getByRole('columnheader').allTextContents(), ['id', 'items', 'to`tal']);
  assert.deepEqual(await first.getByRole('cell').allTextContents(), ['a', '[{"sku":"tea","qty":2}]', '9.90']);
  await close();
});

test('a topic is watched from its beginning, by partition and key, and a record is seen whole', async () => {
  const { page, close } = await open('/ui/topics/orders/live?from=earliest', { permissions: ['clipboard-read', 'clipboard-write'] });
  await until('records come', async () => (await rows(page).count()) > 10);
  await page.getByRole('button', { name: 'Pause' }).click();
  // Times have their day, and are of the zone that is chosen, those of rows that were there before too.
  const times = async () => new Set((await page.locator('.grid-row:not(.mark) [role=gridcell]:first-child').allTextContents()).map((time) => time.replace(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d /, '')));
  for (const zone of ['UTC', 'local']) {
    await page.getByLabel('Time zone').selectOption(zone);
    await until(`times in ${zone}`, async () => [...(await times())].join().replace(/CES?T/, 'local') === zone);
  }
  await page.getByRole('spinbutton', { name: 'Partition' }).fill('1');
  await page.waitForURL(/partition=1/);
  await until('only that partition', async () => (await page.locator('.grid-row [role=gridcell]:nth-child(2)').allTextContents()).every((partition) => partition === '1'));
  await page.getByText(/hidden by what is looked for/).waitFor();
  const offsets = () => page.locator('.grid-row [role=gridcell]:nth-child(3)').allTextContents();
  // For a moment there are none.
  await until('as they come', async () => {
    const [first, second] = (await offsets()).map(Number);
    return first < second;
  });
  await page.getByRole('combobox', { name: 'Order', exact: true }).selectOption('newest');
  await page.waitForURL(/order=newest/);
  await until('the newest on top', async () => {
    const [first, second] = (await offsets()).map(Number);
    return first > second;
  });
  // While they come, nothing moves under who points at them.
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByRole('grid').hover();
  await page.getByRole('button', { name: /new, show/ }).waitFor();
  const stood = await offsets();
  await until('more are waiting', async () => Number(/^[\d,]+/.exec(await page.getByRole('button', { name: /new, show/ }).textContent())[0].replaceAll(',', '')) > 20);
  assert.deepEqual(await offsets(), stood);
  await page.getByRole('button', { name: 'Pause' }).click();
  await rows(page).first().click();
  const picked = page.getByRole('complementary', { name: 'The picked row' });
  const [partition, offset] = await page.locator('.grid-row[aria-selected="true"]').getByRole('gridcell').allTextContents().then((cells) => cells.slice(1, 3));
  await picked.getByRole('button', { name: 'Copy position' }).click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), `${partition}/${offset}`);
  await page.getByRole('complementary', { name: 'The picked row' }).getByText('offset:').waitFor();
  await accessible(page);
  await picture(page, 'topic');
  await close();
});

test('the pages are usable on a narrow screen, and no larger than they may be', async () => {
  for (const path of ['/ui/query', '/ui/streams', '/ui/streams/new', '/ui/topics/orders/live?from=earliest']) {
    const { page, close } = await open(path, { viewport: { width: 400, height: 850 } });
    await page.getByRole('heading', { level: 1 }).waitFor();
    await page.locator('.bar, .filters, .sheet, .empty').first().waitFor();
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(over <= 0, `${path} is ${over} px too wide`);
    await close();
  }
  const { page, close } = await open('/ui/query');
  await page.getByText(/A query ends after/).waitFor();
  await page.getByRole('textbox', { name: 'SQL', exact: true }).waitFor();
  const bytes = await page.evaluate(() => [...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]
    .filter(({ name }) => new URL(name).pathname.startsWith('/ui/')).reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0));
  assert.ok(bytes > 100_000 && bytes < 180_000, `the page with the editor takes ${bytes} bytes`);
  await close();
});

test('a server that goes away ends a query: it is said, its rows are kept, and it can be run again', async () => {
  const failing = [/ERR_CONNECTION|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE|WebSocket|Failed to/];
  const { page, close } = await open(`/ui/query#sql=${encodeURIComponent('SELECT ORDER_ID FROM orders')}`, { expected: failing });
  await page.getByRole('button', { name: 'Run', exact: true }).click();
  await until('rows come', async () => (await rows(page).count()) > 5);
  await world.service.stop('SIGKILL');
  await page.locator('.progress .state', { hasText: /^Connection lost, [1-9]/ }).waitFor({ timeout: 35_000 });
  await page.locator('.connection .state', { hasText: /lost since .*trying again in/ }).waitFor({ timeout: 35_000 });
  assert.ok((await rows(page).count()) > 5, 'what came is kept');
  world.service = await world.serve();
  await page.getByText('connected', { exact: true }).first().waitFor({ timeout: 60_000 });
  await page.getByRole('button', { name: 'Run again' }).click();
  await page.locator('.progress .state', { hasText: 'Running' }).waitFor();
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.locator('.progress .state', { hasText: /^Stopped/ }).waitFor();
  await close();
});

/** How many presses of a key until the focus is there; 40 are no way. */
async function presses(page, key, locator) {
  for (let count = 0; count < 40; count += 1) {
    if (await locator.evaluate((element) => element.getRootNode().activeElement === element)) return count;
    await page.keyboard.press(key);
  }
  return 40;
}

test('from rows to Stop, and to Edit on a stream\'s page, are six keys at most', async () => {
  const { page, close } = await open(`/ui/query#sql=${encodeURIComponent('SELECT ORDER_ID FROM orders')}`);
  await page.getByRole('button', { name: 'Run', exact: true }).click();
  await until('rows come', async () => (await rows(page).count()) > 5);
  const stop = page.getByRole('button', { name: 'Stop', exact: true });
  // Back by Tab alone, then along the buttons.
  const grid = page.getByRole('grid');
  await grid.focus();
  const run = page.getByRole('toolbar', { name: 'The query', exact: true }).locator('[tabindex="0"]');
  assert.equal(await run.count(), 1, 'the buttons are one stop');
  const back = await presses(page, 'Shift+Tab', run);
  assert.ok(back <= 7, `${back} presses from the rows to the buttons`);
  // By the key that leads to what can be done, and the arrows there.
  await grid.focus();
  await page.keyboard.press('a');
  assert.ok((await presses(page, 'ArrowRight', stop)) <= 5);
  // Columns are no stops: the head is one step to the right, and Escape leads back.
  await page.getByRole('button', { name: 'Pause' }).click();
  await grid.focus();
  assert.equal(await grid.locator('[tabindex="0"]').count(), 0);
  await page.keyboard.press('ArrowRight');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'ORDER_ID');
  await page.keyboard.press('ArrowRight');
  const grip = page.getByRole('separator', { name: 'Width of ORDER_ID' });
  const before = Number(await grip.getAttribute('aria-valuenow'));
  await page.keyboard.press('ArrowRight');
  await until('it is wider', async () => Number(await grip.getAttribute('aria-valuenow')) === before + 16);
  await page.keyboard.press('Escape');
  assert.ok(await grid.evaluate((element) => element === document.activeElement));
  await page.keyboard.press('a');
  await presses(page, 'ArrowRight', stop);
  await page.keyboard.press('Enter');
  await page.locator('.progress .state', { hasText: /^Stopped/ }).waitFor();

  const made = await fetch(`${world.base}/api/streams`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ name: 'ByKeys', sqlScript: 'SELECT ORDER_ID FROM orders' }) });
  assert.equal(made.status, 201);
  const { id } = await made.json();
  await page.goto(`${world.base}/ui/streams/${id}`);
  const edit = page.getByRole('button', { name: 'Edit …' });
  await edit.waitFor();
  await page.locator('#main').focus();
  assert.ok((await presses(page, 'Tab', page.getByRole('toolbar', { name: 'The stream', exact: true }).locator('[tabindex="0"]'))) <= 3);
  await page.keyboard.press('a');
  assert.ok((await presses(page, 'ArrowRight', edit)) <= 5);
  await page.keyboard.press('Enter');
  await page.getByRole('textbox', { name: 'New text of the stream' }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.value), 'ByKeys', 'it begins at the first field');
  await accessible(page);
  await close();
});

test('buttons that belong together are one stop of Tab on every page, and `a` leads to what can be done', async () => {
  const { id } = await (await fetch(`${world.base}/api/streams`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ name: 'OneStop', sqlScript: 'SELECT ORDER_ID FROM orders' }) })).json();
  const { page, close } = await open('/ui/query');
  for (const [path, main] of [
    [`/ui/query#sql=${encodeURIComponent('SELECT ORDER_ID FROM orders')}`, 'The query'], [`/ui/streams/${id}`, 'The stream'], [`/ui/streams/${id}/live`, 'What comes'], ['/ui/topics/orders/live', 'What comes'],
  ]) {
    await page.goto(base + path);
    const bar = page.getByRole('toolbar', { name: main, exact: true });
    await bar.waitFor();
    const stops = await page.getByRole('toolbar').evaluateAll((all) => all.map((bar) => [bar.getAttribute('aria-label'), [...bar.querySelectorAll('button, a[href]')].filter(({ tabIndex }) => tabIndex === 0).length]));
    assert.ok(stops.length > 1 || path.includes(`${id}`), `${path}: ${stops}`);
    for (const [label, count] of stops) assert.equal(count, 1, `${path}: ${label} has ${count} stops`);

    await page.locator('#main').focus();
    await page.keyboard.press('a');
    const focused = () => bar.evaluate((bar) => [...bar.querySelectorAll('button, a[href]')].indexOf(document.activeElement));
    const last = (await bar.locator('button, a[href]').count()) - 1;
    assert.ok(last > 0);
    const seen = [];
    for (const key of ['Home', 'ArrowLeft', 'ArrowRight', 'ArrowRight', 'End']) {
      await page.keyboard.press(key);
      seen.push(await focused());
    }
    assert.deepEqual(seen, [0, last, 0, 1, last], path);
    // Who comes back by Tab is where he was, and is out with one press.
    await page.keyboard.press('Tab');
    assert.equal(await focused(), -1, `${path}: one press leads out`);
    await page.keyboard.press('Shift+Tab');
    assert.equal(await focused(), last, `${path}: and back`);
  }
  // Where something is written it is a letter.
  const find = page.getByRole('searchbox', { name: 'Find in what is kept' });
  await find.focus();
  await page.keyboard.press('a');
  assert.equal(await find.inputValue(), 'a');
  await close();
});

test('a change that is not saved outlives a look at another part, and is asked about before it is lost', async () => {
  const { id } = await (await fetch(`${world.base}/api/streams`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ name: 'Unsaved', sqlScript: 'SELECT ORDER_ID FROM orders' }) })).json();
  const { page, close } = await open('/ui/streams');
  const asked = [];
  let answer = 'dismiss';
  page.on('dialog', async (dialog) => {
    asked.push(dialog.type());
    await dialog[answer]();
  });
  await page.getByRole('link', { name: 'Unsaved', exact: true }).click();
  await page.getByRole('button', { name: 'Edit …' }).click();
  const editor = page.getByRole('textbox', { name: 'New text of the stream', exact: true });
  const text = 'SELECT ORDER_ID, AMOUNT FROM orders';
  await type(page, 'New text of the stream', text);
  const stands = async () => assert.equal(await editor.textContent(), text);
  await page.getByRole('link', { name: 'Revisions' }).click();
  await page.getByRole('region', { name: 'Revisions of the text' }).waitFor();
  await editor.waitFor({ state: 'hidden' });
  await page.getByRole('link', { name: 'Text', exact: true }).click();
  await editor.waitFor();
  await stands();
  assert.deepEqual(asked, [], 'nothing was about to be lost');

  // Back, and staying.
  await page.evaluate(() => history.back());
  await until('it is asked', () => asked.length === 1);
  await page.waitForURL(`**/ui/streams/${id}`);
  await stands();
  // A link, and a reload that is thought better of.
  await page.getByRole('link', { name: 'All streams' }).click();
  await until('it is asked', () => asked.length === 2);
  await page.evaluate(() => location.reload());
  await until('it is asked', () => asked.length === 3);
  await stands();
  assert.deepEqual(asked, ['confirm', 'confirm', 'beforeunload']);
  // And going all the same.
  answer = 'accept';
  await page.evaluate(() => history.back());
  await page.getByRole('heading', { name: 'Streams', exact: true }).waitFor();
  assert.equal(asked.length, 4);
  await page.reload();
  await page.getByRole('heading', { name: 'Streams', exact: true }).waitFor();
  assert.equal(asked.length, 4, 'nothing is left to ask about');
  await close();
});

/** The tab is put away, or looked at again. */
const hide = (page, hidden) => page.evaluate((hidden) => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event('visibilitychange'));
}, hidden);

test('who comes back to a tab sees what has been missed, and nothing twice', async () => {
  const { page, close } = await open('/ui/topics/orders/live');
  await until('records come', async () => (await rows(page).count()) > 3);
  await hide(page, true);
  await page.locator('.grid-row', { hasText: /Not connected since .*are missing/ }).waitFor();
  await hide(page, false);
  await page.locator('.bar .state', { hasText: 'Live' }).waitFor();

  await page.goto(`${base}/ui/topics/orders/live?from=earliest`);
  await until('records come', async () => (await rows(page).count()) > 10);
  await hide(page, true);
  await page.locator('.bar .state', { hasText: /^As of .*; connecting again$/ }).waitFor();
  const again = page.waitForResponse('**/api/topics/orders/rows?*');
  await hide(page, false);
  await again;
  await page.locator('.bar .state', { hasText: 'Live' }).waitFor();
  await until('they come once more', async () => (await rows(page).count()) > 10);
  await page.getByRole('button', { name: 'Pause' }).click();
  const file = page.waitForEvent('download');
  await page.getByRole('button', { name: 'JSON lines' }).click();
  const positions = (await textOf(await file)).trim().split('\n').map((line) => JSON.parse(line)).map(({ partition, offset }) => `${partition}/${offset}`);
  // Which partition comes first is the broker's affair, and the others may not have come yet.
  assert.ok(positions.length > 10 && positions.some((position) => position.endsWith('/0')), `${positions.length} records: ${positions.slice(0, 5)}`);
  assert.equal(new Set(positions).size, positions.length, 'no record twice');
  await close();
});

test('what is asked of a connection that is cut off waits until it is there again', async () => {
  const { page, close } = await open('/ui/streams', { expected: [/ERR_FAILED/, /WebSocket/] });
  let socket;
  await page.routeWebSocket('**/hub/stream*', (opened) => {
    socket = opened;
    opened.connectToServer();
  });
  await page.goto(`${base}/ui/query#sql=${encodeURIComponent('SELECT ORDER_ID FROM orders LIMIT 3')}`);
  await page.getByText(/A query ends after/).waitFor();
  // It comes back with its third attempt, after two seconds at the least.
  let attempts = 0;
  await page.route('**/hub/stream/negotiate*', (route) => ((attempts += 1) < 3 ? route.abort() : route.continue()));
  await socket.close({ code: 4000, reason: 'cut' });
  await page.locator('.connection .state', { hasText: /lost since .*trying again in/ }).waitFor();
  await page.getByRole('button', { name: 'Run', exact: true }).click();
  await page.locator('.progress .state', { hasText: /3 rows/ }).waitFor();
  assert.equal(attempts, 3, 'it was cut off when it was asked');
  assert.equal(await rows(page).count(), 3);
  await close();
});

test('an address that is put into the open page is taken, and a filter that is given up is empty', async () => {
  const { page, close } = await open('/ui/query');
  const editor = page.getByRole('textbox', { name: 'SQL', exact: true });
  await editor.click();
  await page.keyboard.type('SELECT 1');
  await page.waitForURL(/#sql=SELECT\+1$/);
  await page.evaluate(() => (location.hash = 'sql=SELECT PRODUCT FROM orders'));
  await until('its text', async () => (await editor.textContent()) === 'SELECT PRODUCT FROM orders');
  await page.getByRole('button', { name: 'SELECT 1', exact: true }).waitFor();

  await page.goto(`${base}/ui/streams/new`);
  const text = page.getByRole('textbox', { name: 'Text of the stream', exact: true });
  await text.waitFor();
  await page.evaluate(() => (location.hash = 'name=Pasted&sql=SELECT PRODUCT FROM orders'));
  await until('its text', async () => (await text.textContent()) === 'SELECT PRODUCT FROM orders');
  assert.equal(await page.getByPlaceholder('HighValueOrders').inputValue(), 'Pasted');

  await page.goto(`${base}/ui/streams`);
  const name = page.getByLabel('Name', { exact: true });
  await name.fill('nosuch');
  await page.keyboard.press('Enter');
  await page.getByText('No stream matches.').waitFor();
  await page.getByRole('link', { name: 'Show all' }).click();
  await until('it is empty', async () => (await name.inputValue()) === '');
  await close();
});
