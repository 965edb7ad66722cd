// Lists and what is asked of them: pages, filters that are written, times, and what fails; over the real service, of which single
// answers are held back or exchanged.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { browse, playground, until } from './browser.mjs';

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

/** The cursor of the second page, as somebody has it who has pressed Next. */
async function second(path) {
  const link = (await fetch(`${server.base}${path}`)).headers.get('link');
  return new URL(/<([^>]*)>[^,]*rel="next"/.exec(link)[1], server.base).searchParams.get('cursor');
}

test('what is written into a filter begins at the first page, and stays while the list is drawn anew', async () => {
  for (const [path, list, field] of [
    ['/ui/operations/letters', '/ops/dead-letters?status=open&pageSize=1', 'Key'],
    ['/ui/operations/held', '/ops/held?pageSize=1', 'Order'],
    ['/ui/orders', '/orders?pageSize=1', 'Customer'],
  ]) {
    const { page, close } = await open(`${path}?cursor=${await second(list)}`);
    await page.locator('table').waitFor();
    const input = page.getByLabel(field, { exact: true });
    await input.focus();
    await page.keyboard.type('nob');
    // Drawn anew twice, with what the next answers say.
    for (let turn = 0; turn < 2; turn += 1) await page.waitForResponse((response) => response.url().includes(list.slice(0, list.indexOf('?'))));
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    assert.equal(await input.inputValue(), 'nob', path);
    await page.keyboard.type('ody');
    await page.keyboard.press('Enter');
    await page.waitForURL((url) => url.hash.endsWith('=nobody') && !url.searchParams.has('cursor'));
    await page.locator('.empty', { hasText: / matches\./ }).waitFor();
    assert.equal(await page.getByRole('alert').count(), 0);
    await close();
  }
});

test('a decision by time is about what the page shows, however long it has been open', async () => {
  // What the address says of a page that was turned, hours ago; the cursor itself is left out on the way.
  const to = new Date(Math.floor(Date.now() / 60_000) * 60_000 + 600_000);
  const from = new Date(to.getTime() - 7_200_000);
  const { page, close } = await open('/ui/orders');
  await page.route(/dead-letters\?.*cursor=/, (route) => route.continue({ url: route.request().url().replace(/&cursor=[^&]*/, '') }));
  await page.goto(`${server.base}/ui/operations/letters?from=${from.toISOString()}&to=${to.toISOString()}&at=${Date.now()}&cursor=second`);
  await page.getByRole('region', { name: 'Dead letters' }).waitFor();
  await page.getByLabel('Status').selectOption('all');
  await page.waitForURL((url) => url.searchParams.get('status') === 'all' && !url.searchParams.has('at') && !url.searchParams.has('cursor'));
  await page.getByRole('button', { name: 'Skip all that match …' }).click();
  const later = Date.now() + 90 * 60_000 + 250;
  await page.clock.setFixedTime(later);
  await page.getByText(/Of every one that matches status all, from \d{4}-.*, before \d{4}-/).waitFor();
  await page.getByLabel('Why', { exact: true }).fill('they are old');
  const sent = page.waitForRequest('**/ops/dead-letters/skip?dry_run=true');
  await page.getByRole('button', { name: 'Tell how many' }).click();
  const { filter } = (await sent).postDataJSON();
  const [oldest, newest] = [later - Number(filter.newerThan) * 1000, later - Number(filter.olderThan) * 1000];
  assert.ok(oldest >= from.getTime() && oldest < from.getTime() + 1000, `from ${new Date(oldest).toISOString()}`);
  assert.ok(newest <= to.getTime() - 1000 && newest > to.getTime() - 2000, `until ${new Date(newest).toISOString()}`);
  await close();
});

test('what could not be asked for is told, and nothing is called good meanwhile', async () => {
  const { page, close } = await open('/ui/operations', { expected: [/status of 503/] });
  const verdict = page.locator('.verdict');
  await verdict.getByText('Running', { exact: true }).waitFor();
  const heldNow = page.locator('dt', { hasText: /^Held$/ }).locator('xpath=following-sibling::dd');
  await until('how many wait', async () => /^\d+$/.test(await heldNow.textContent()));
  // One of the four questions fails: before there was an answer, and after.
  await page.route('**/ops/held?*', (route) => route.fulfill({ status: 503, contentType: 'application/problem+json', body: '{"code":"database_unavailable","detail":"Postgres does not answer"}' }));
  await verdict.getByText('Not all is known', { exact: true }).waitFor();
  assert.match(await heldNow.textContent(), /^\d+$/);
  await page.getByText(/What is shown is as of/).waitFor();
  await page.reload();
  await page.getByRole('alert').getByText('Postgres does not answer').waitFor();
  await verdict.getByText('Not all is known', { exact: true }).waitFor();
  assert.equal(await heldNow.textContent(), 'not known');
  await page.unroute('**/ops/held?*');
  await verdict.getByText('Running', { exact: true }).waitFor();
  // Of more than are counted it is said that there are more.
  await page.route('**/ops/dead-letters?*', async (route) => {
    const response = await route.fetch();
    const { items } = await response.json();
    await route.fulfill({ response, json: { items: Array.from({ length: 200 }, (_, at) => ({ ...items[0], id: at + 1 })) } });
  });
  await page.getByText(/200 or more records were refused/).waitFor();
  await page.getByRole('link', { name: '200+', exact: true }).waitFor();
  // A question that is not even refused.
  await page.route('**/ops/held?*', () => undefined);
  await page.clock.setFixedTime(Date.now() + 60_000);
  await verdict.getByText('Not all is known', { exact: true }).waitFor();
  await page.getByText(/Of some of it there is no answer since/).waitFor();
  await close();
});

test('an answer is never shown as that to another question', async () => {
  const { page, close } = await open('/ui/orders', { expected: [/status of 500/] });
  const { items } = await (await fetch(`${server.base}/orders?sort=-totalGross&pageSize=50`)).json();
  const { orderId, lastEventSequence } = items.find((order) => order.lastEventSequence > 3);
  const last = lastEventSequence - 1;
  let answer;
  const held = new Promise((resolve) => (answer = resolve));
  await page.route(`**/orders/${orderId}?asOfSequence=${last - 1}`, async (route) => {
    await held;
    await route.fulfill({ status: 500, contentType: 'application/problem+json', body: '{"code":"internal","detail":"It has failed"}' });
  });
  await page.goto(`${server.base}/ui/orders/${orderId}?asOf=${last}`);
  const gross = page.locator('.facts .big').first();
  await gross.waitFor();
  await page.getByRole('slider').focus();
  await page.keyboard.press('ArrowLeft');
  await page.waitForURL(`**?asOf=${last - 1}`);
  // Slow: what was seen is pale, and said to be on its way. Failed: it is gone.
  await page.locator('.other .facts').waitFor();
  await page.getByText('Loading the order …').waitFor();
  answer();
  await page.getByRole('alert').getByText('It has failed').waitFor();
  assert.equal(await gross.count(), 0, 'no totals of another event');
  assert.equal(await page.locator('.head .state').count(), 0);
  await page.getByRole('button', { name: 'Back to now' }).click();
  await gross.waitFor();
  await close();
});

test('an answer that cannot be read is said where it was asked for', async () => {
  const { page, close } = await open('/ui/operations/letters');
  await page.getByRole('button', { name: 'Skip all that match …' }).click();
  await page.getByLabel('Why', { exact: true }).fill('a proxy answers');
  await page.route('**/ops/dead-letters/skip?dry_run=true', (route) => route.fulfill({ contentType: 'text/html', body: '<h1>Welcome' }), { times: 1 });
  const keys = [];
  page.on('request', (request) => request.url().includes('dry_run') && keys.push(request.headers()['idempotency-key']));
  await page.getByRole('button', { name: 'Tell how many' }).click();
  await page.getByRole('alert').getByText(/The answer is not one of StreamView's/).waitFor();
  await page.getByRole('button', { name: 'Tell how many' }).click();
  await page.getByText(/ would be decided/).waitFor();
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1], 'what has perhaps been done is not done twice');
  await close();
});

test('an order that was repaired waits for nothing any more, on a page that was open meanwhile too', async () => {
  const { items } = await (await fetch(`${server.base}/ops/held?pageSize=200`)).json();
  const { key, parkedCount } = items.find(({ reason, parkedCount }) => reason === 'gap' && parkedCount > 0);
  // The look that finds it held no more.
  const { page, close } = await open(`/ui/orders/${key}`, { expected: [/status of 404/] });
  const history = page.getByRole('region', { name: 'Events of the order' });
  await history.getByText('missing, the order waits for it').first().waitFor();
  const parked = history.getByText('parked', { exact: true });
  await parked.first().waitFor();
  assert.equal(await parked.count(), parkedCount);
  const skipped = await fetch(`${server.base}/ops/held/${key}/skip`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ reason: 'lost by the producer' }) });
  assert.equal(skipped.status, 202);
  await page.locator('.head .flag', { hasText: 'held' }).waitFor({ state: 'detached' });
  await until('what was parked is applied', async () => (await (await fetch(`${server.base}/orders/${key}/events`)).json()).items.length === (await history.locator('tbody tr').count()));
  assert.equal(await parked.count(), 0);
  assert.equal(await history.getByText(/missing/).count(), 0);
  await close();
});

test('a number that has changed since it was told is told anew, and what was written stays', async () => {
  const { page, close } = await open('/ui/operations/letters', { expected: [/status of 409/] });
  let matched = 4;
  const made = [];
  await page.route(/\/ops\/dead-letters\/skip/, (route) => {
    const request = route.request();
    const dryRun = request.url().endsWith('?dry_run=true');
    const { expect, reason } = request.postDataJSON();
    if (!dryRun) made.push([expect, reason]);
    if (!dryRun && expect !== matched) return route.fulfill({ status: 409, contentType: 'application/problem+json', json: { code: 'count_changed', detail: `${matched} match now, ${expect} were expected` } });
    return route.fulfill({ json: { dryRun, matched, more: false, possible: matched, decided: dryRun ? 0 : matched, sample: [], impossible: 0, impossibleSample: [] } });
  });
  await page.getByRole('button', { name: 'Skip all that match …' }).click();
  await page.getByLabel('Why', { exact: true }).fill('nobody misses them');
  await page.getByRole('button', { name: 'Tell how many' }).click();
  await page.getByText('4 match; 4 would be decided').waitFor();
  matched = 5;
  await page.getByRole('button', { name: 'Skip 4' }).click();
  await page.getByRole('alert').getByText('5 match now, 4 were expected').waitFor();
  await page.getByRole('button', { name: 'Tell how many' }).click();
  await page.getByText('5 match; 5 would be decided').waitFor();
  assert.equal(await page.getByRole('alert').count(), 0, 'what was refused is over');
  await page.getByRole('button', { name: 'Skip 5' }).click();
  await page.getByText('5 letters decided.').waitFor();
  assert.deepEqual(made, [[4, 'nobody misses them'], [5, 'nobody misses them']]);
  await close();
});

test('the number of orders is counted again while they come, and what waits behind the list is shown when it is asked for', async () => {
  const to = new Date(Math.floor(Date.now() / 60_000) * 60_000 + 3_600_000).toISOString();
  const { page, close } = await open(`/ui/orders?to=${to}`);
  await page.route((url) => url.pathname === '/orders' && url.searchParams.get('pageSize') === '1' && url.searchParams.get('to') === to && !url.searchParams.has('status'),
    (route) => route.fulfill({ json: { items: [], page: null, pageSize: 1, total: 123_456, totalIsEstimate: false } }));
  await page.getByText('123,456 orders match').waitFor();
  const first = () => page.locator('tbody tr').first().getAttribute('data-order');
  const stood = await first();
  const asked = page.waitForRequest((request) => new URL(request.url()).searchParams.get('pageSize') === '50');
  await page.getByRole('button', { name: /new, show/ }).click();
  await asked;
  await until('they are on top', async () => (await first()) !== stood);
  await close();
});

test('where more orders are held than are listed, those in view are seen to be held all the same', async () => {
  const { page, close } = await open('/ui/orders?sort=orderId');
  await page.route('**/ops/held?*', async (route) => {
    const response = await route.fetch();
    const { items } = await response.json();
    await route.fulfill({ response, json: { items: Array.from({ length: 200 }, (_, at) => ({ ...items[0], key: `other-${at}` })) } });
  });
  await page.route(/\/orders\/order-\d+$/, async (route) => {
    const response = await route.fetch();
    const order = await response.json();
    await route.fulfill({ response, json: { ...order, held: { reason: 'gap', missingFrom: 2, missingTo: null, parkedCount: 1, parkedBytes: 1, since: order.updatedAt, href: '' } } });
  });
  await page.getByText('200 or more orders are held').waitFor();
  await page.locator('tbody tr').first().getByRole('link', { name: 'held' }).waitFor();
  await close();
});
