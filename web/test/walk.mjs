// A stranger's walk without a mouse, over a fresh playground with the embedded engine: every step by keys alone, with how many
// presses of Tab each took. `SCREENSHOTS=DIR node test/walk.mjs [WIDTH] [light|dark]`; WALK.md tells of it.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { browse, playground, until } from './browser.mjs';

const [width, colorScheme] = [Number(process.argv[2] ?? 1280), process.argv[3] ?? 'light'];
const folder = process.env.SCREENSHOTS;
/** More is no way to get anywhere. */
const MOST_TABS = 60;

const server = await playground();
const browser = await browse(server.base);
const { page, close } = await browser.open('/', { viewport: { width, height: 850 }, colorScheme, expected: [/status of 404/] });
let shots = 0;
const told = [];

async function shot(name) {
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  shots += 1;
  await page.screenshot({ path: join(folder, `walk-${width}-${colorScheme}-${String(shots).padStart(2, '0')}-${name}.png`), caret: 'initial' });
}

/** Presses Tab (or another key) until the focus is there. */
async function tabTo(what, locator, key = 'Tab') {
  await locator.first().waitFor();
  const here = () => locator.first().evaluate((element) => element.getRootNode().activeElement === element);
  let presses = 0;
  while (!(await here())) {
    assert.ok(presses < MOST_TABS, `${what} is not reached by ${MOST_TABS} presses of ${key}`);
    await page.keyboard.press(key);
    presses += 1;
  }
  const isSeen = await locator.first().evaluate((element) => {
    const { top, bottom, left, right } = element.getBoundingClientRect();
    return bottom > 0 && top < innerHeight && right > 0 && left < innerWidth;
  });
  assert.ok(isSeen, `${what} has the focus and is out of sight`);
  told.push([presses, key, what]);
  console.log(`${String(presses).padStart(3)} ${key} to ${what}`);
}
const press = async (what, locator, key) => {
  await tabTo(what, locator, key);
  await page.keyboard.press('Enter');
};
/** To one of the buttons that can be pressed here, and presses it: `a`, then arrow keys. */
async function act(what, locator) {
  await page.keyboard.press('a');
  await press(what, locator, 'ArrowRight');
}
const button = (name) => page.getByRole('button', { name, exact: true });
const link = (name) => page.getByRole('link', { name, exact: true });
const dialog = page.getByRole('dialog');
const write = async (text) => {
  await page.keyboard.press('Control+A');
  await page.keyboard.insertText(text);
};
const visit = (title) => press(`the page ${title}`, page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: title }), 'Shift+Tab');
async function step(name, walk) {
  const at = Date.now();
  try {
    await walk();
  } catch (error) {
    await shot(`${name}-FAILED`);
    console.error(server.out().split('\n').slice(-20).join('\n'));
    throw error;
  }
  await shot(name);
  console.log(`--- ${name}: ${((Date.now() - at) / 1000).toFixed(1)} s`);
}

try {
  await step('orders', async () => {
    await page.getByRole('region', { name: 'Orders' }).waitFor();
    await press('the link past the header', link('Skip to the page'));
    await press('what held orders wait for', link('See what they wait for'));
  });
  await step('held', async () => {
    await page.getByRole('region', { name: 'Held orders' }).waitFor();
    await page.keyboard.press('l');
    await press('the held order', link('order-180'), 'ArrowDown');
  });
  await step('held-order', () => press('Replace', button('Replace …')));
  await step('replace', async () => {
    const text = dialog.getByRole('textbox', { name: 'As it should be' });
    await until('the original is there', async () => (await text.inputValue()).includes('yesterday'));
    await tabTo('the text', text);
    await write((await text.inputValue()).replace(/"occurredAt": \{\s*"when": "yesterday"\s*\}/, '"occurredAt": "2026-11-28T12:00:00Z"'));
    await tabTo('the reason', dialog.getByLabel('What was wrong with it'));
    await page.keyboard.type('its time was no time');
  });
  await step('repaired', async () => {
    await page.keyboard.press('Enter');
    await page.getByText(/The order is not held/).waitFor();
    await press('the order', link('See the order'));
    await until('it has gone on', async () => (await page.locator('.head .state').textContent()) === 'Cancelled');
  });
  const editor = page.getByRole('textbox', { name: 'SQL', exact: true });
  await step('query', async () => {
    await visit('Query');
    await tabTo('the editor', editor);
    await page.keyboard.type("select orderId, status from order_events where status = 'Paid'");
    await page.keyboard.press('Escape');
    await page.keyboard.press('Control+Enter');
    await until('rows come', async () => (await page.locator('.grid-body .grid-row').count()) > 3);
  });
  await step('paused', async () => {
    await tabTo('the rows', page.getByRole('grid'));
    await page.keyboard.press('Space');
    await button('Resume').waitFor();
    await page.keyboard.press('Home');
    await page.getByRole('complementary', { name: 'The picked row' }).waitFor();
  });
  await step('stopped', async () => {
    await page.keyboard.press('Space');
    await button('Pause').waitFor();
    await act('Stop', button('Stop'));
    await page.locator('.progress .state', { hasText: /^Stopped, [\d,]+ rows/ }).waitFor();
    assert.deepEqual((await (await fetch(`${server.base}/api/queries`)).json()).items, []);
  });
  await step('new-stream', async () => {
    await press('a stream of it', link('Make a stream of this'));
    await tabTo('its name', page.getByPlaceholder('HighValueOrders'));
    await page.keyboard.type('Walked');
    await page.getByText('Can run, says the engine.').or(page.getByText('The gate has nothing against it')).waitFor();
  });
  await step('stream', async () => {
    await page.keyboard.press('Enter');
    await page.locator('.head .state', { hasText: 'Running' }).waitFor({ timeout: 60_000 });
  });
  await step('live', async () => {
    await press('its live rows', link('Live rows'));
    await until('rows come', async () => (await page.locator('.grid-body .grid-row').count()) > 1);
    await press('the stream', link('The stream'));
  });
  await step('edit', async () => {
    await act('Edit', button('Edit …'));
    await tabTo('the new text', page.getByRole('textbox', { name: 'New text of the stream' }));
    await page.keyboard.press('Control+A');
    await page.keyboard.type("select orderId, status, occurredAt from order_events where status = 'Packed'");
    await page.keyboard.press('Escape');
    await page.getByRole('status', { name: 'What would happen' }).waitFor();
    const accept = page.getByLabel('The state may be lost');
    if (await accept.count()) {
      await tabTo('that the state may be lost', accept);
      await page.keyboard.press('Space');
    }
    await tabTo('Save', page.getByRole('button', { name: /^Save/ }));
  });
  await step('updated', async () => {
    await page.keyboard.press('Enter');
    await button('Edit …').waitFor({ timeout: 60_000 });
    await page.locator('.head .state', { hasText: 'Running' }).waitFor({ timeout: 60_000 });
    await until('the new text runs', async () => (await (await fetch(`${server.base}/api/streams?name=Walked`)).json()).items.every(({ revision, deployedRevision, isSettled }) => revision === 2 && deployedRevision === 2 && isSettled));
  });
  await step('deleted', async () => {
    await act('Delete', button('Delete …'));
    await tabTo('its name', dialog.getByLabel(/Type its name/));
    await page.keyboard.type('Walked');
    await page.keyboard.press('Enter');
    await dialog.getByText(/What stays:|Nothing of it stays/).waitFor();
    await press('the streams', dialog.getByRole('button', { name: 'To the streams' }));
    await page.getByRole('region', { name: 'Streams' }).waitFor();
  });
  await step('rebuild', async () => {
    await visit('Operations');
    await press('Builds', link('Builds'));
    await press('Rebuild', button('Rebuild …'));
    await tabTo('why', dialog.getByLabel('Why', { exact: true }));
    await page.keyboard.type('to see what differs');
    await page.keyboard.press('Enter');
    await page.getByText('It waits for a word.').waitFor({ timeout: 120_000 });
  });
  await step('switched', async () => {
    await press('the switch', page.getByRole('button', { name: /Switch readers to build/ }));
    await page.locator('.head .state', { hasText: 'done' }).waitFor({ timeout: 60_000 });
  });
  await step('rolled-back', async () => {
    await press('all builds', link('All builds'), 'Shift+Tab');
    await press('Roll back', button('Roll back …'));
    await tabTo('why', dialog.getByLabel('Why', { exact: true }));
    await page.keyboard.type('to see that it can be');
    await page.keyboard.press('Enter');
    await page.waitForURL(/operations\/builds\/\d+$/);
    await page.locator('.head .state', { hasText: 'done' }).waitFor({ timeout: 60_000 });
    assert.equal((await (await fetch(`${server.base}/ops/views`)).json()).items[0].activeBuild, 1);
  });
  await close();
  console.log(`the most: ${told.sort((a, b) => b[0] - a[0]).slice(0, 4).map(([presses, key, what]) => `${presses} ${key} to ${what}`).join('; ')}`);
} finally {
  await browser.close();
  await server.stop();
}
