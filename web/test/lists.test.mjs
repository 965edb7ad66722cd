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
  const later = Date.now() + 90 * 60_000 + 250;
  await page.clock.setFixedTime(later);
  await page.getByRole('button', { name: 'Skip all that match …' }).click();
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
