// Signing in where callers log in: what a reader sees, what is refused, and the way out.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessible, browse, command, picture, playground } from './browser.mjs';

let server, browser, open;
const keys = {};
before(async () => {
  server = await playground({ STREAMVIEW_AUTH__API_KEYS: 'true' }, ['--orders', '100']);
  for (const role of ['reader', 'operator']) {
    const made = await command(['apikey', 'create', '--json', '--name', role, '--role', role], { STREAMVIEW_DATABASE__URL: server.database });
    keys[role] = JSON.parse(made).key;
  }
  browser = await browse(server.base);
  ({ open } = browser);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test('who signs in sees what the role shows, and why the rest is not', async () => {
  const { page, close } = await open('/ui/operations/builds', { expected: [/401/] });
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await accessible(page);
  await picture(page, 'sign-in');
  await page.getByLabel('API key').fill('svk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA');
  await page.keyboard.press('Enter');
  await page.getByRole('link', { name: 'invalid_credentials' }).waitFor();
  await page.getByLabel('API key').fill(keys.reader);
  await page.keyboard.press('Enter');
  await page.getByText('Your role does not allow this: it needs operator.').waitFor();
  await accessible(page);
  await page.getByRole('link', { name: 'Orders', exact: true }).click();
  await page.locator('table').waitFor();
  assert.deepEqual(await page.evaluate(() => [document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage)]), ['', '{}', '{}'], 'no script can read it');
  await page.reload();
  await page.locator('table').waitFor();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await page.getByLabel('API key').fill(keys.operator);
  await page.keyboard.press('Enter');
  await page.locator('table').waitFor();
  await page.getByRole('link', { name: 'Operations' }).click();
  await page.getByText('Running', { exact: true }).waitFor();
  await page.getByRole('link', { name: 'Audit' }).click();
  await page.getByText('Your role does not allow this: it needs admin.').waitFor();
  await page.getByRole('link', { name: 'Builds' }).click();
  await page.getByRole('button', { name: 'Pause …' }).click();
  await page.getByLabel('Why', { exact: true }).fill('to see who it was');
  await page.getByRole('button', { name: 'Pause', exact: true }).click();
  await page.getByText('Paused by operator: to see who it was.').waitFor();
  await close();
});

test('a page of elsewhere does nothing with the cookie', async () => {
  const { page, close } = await open('/ui/orders', { expected: [/401/] });
  await page.getByLabel('API key').fill(keys.operator);
  await page.keyboard.press('Enter');
  await page.locator('table').waitFor();
  const cookies = await page.context().cookies();
  assert.deepEqual(cookies.map(({ name, httpOnly, sameSite }) => ({ name, httpOnly, sameSite })), [{ name: 'streamview_session', httpOnly: true, sameSite: 'Strict' }]);
  await close();
});
