// Signing in where callers log in: what a reader sees, what is refused, and the way out.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessible, browse, command, picture, playground, until } from './browser.mjs';
import { provider } from './provider.mjs';

let server, browser, open, identity;
const keys = {};
const ids = {};
before(async () => {
  identity = await provider({ client: 'console', secret: 'not-told', person: { name: 'ada', roles: ['operator'] } });
  server = await playground({
    STREAMVIEW_AUTH__API_KEYS: 'true', STREAMVIEW_AUTH__JWT__ISSUER: identity.issuer, STREAMVIEW_AUTH__JWT__AUDIENCE: 'console',
    STREAMVIEW_AUTH__OIDC__CLIENT_ID: 'console', STREAMVIEW_AUTH__OIDC__CLIENT_SECRET: 'not-told',
  });
  await Promise.all(['reader', 'operator', 'passing'].map(async (name) => {
    const made = JSON.parse(await command(['apikey', 'create', '--json', '--name', name, '--role', name === 'reader' ? 'reader' : 'operator'], { STREAMVIEW_DATABASE__URL: server.database }));
    [keys[name], ids[name]] = [made.key, made.id];
  }));
  browser = await browse(server.base);
  ({ open } = browser);
});
after(async () => {
  await browser?.close();
  await server?.stop();
  identity?.close();
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
  // The same browser, on a page of another site, which gets no cookie sent; and on one of another port of this host, which does: what
  // it has sent here is nobody's.
  const elsewhere = await page.context().newPage();
  const sites = [identity.issuer, identity.issuer.replace('localhost', new URL(server.base).hostname)];
  assert.notEqual(...sites);
  for (const site of sites) {
    for (const [method, path, status] of [['get', '/ops/views', 401], ['post', '/ops/views/orders/pause', 403]]) {
      await elsewhere.goto(`${site}/authorize`);
      const answer = elsewhere.waitForResponse((response) => response.url().replace(/\?$/, '') === server.base + path);
      await elsewhere.evaluate(([method, url]) => {
        const form = Object.assign(document.createElement('form'), { method, action: url });
        document.body.append(form);
        form.submit();
      }, [method, `${server.base}${path}`]);
      assert.equal((await answer).status(), status, `${site}: ${method} ${path}`);
      const { cookie } = await (await answer).request().allHeaders();
      assert.equal(cookie !== undefined, site !== identity.issuer, `${site}: the cookie is ${cookie === undefined ? 'not ' : ''}sent`);
      await elsewhere.waitForURL(`${server.base}${path}*`);
    }
  }
  await page.reload();
  await page.locator('.who', { hasText: 'operator' }).waitFor();
  await close();
});

test('somebody signs in at the identity provider, and comes back to the page that was asked for', async () => {
  const { page, close } = await open('/ui/operations/held', { expected: [/401/], also: [identity.issuer] });
  await page.getByRole('link', { name: 'Sign in at localhost' }).click();
  await page.getByRole('link', { name: 'Go on as ada' }).click();
  await page.waitForURL(`${server.base}/ui/operations/held`);
  await page.getByRole('region', { name: 'Held orders' }).waitFor();
  await page.locator('.who', { hasText: 'ada' }).waitFor();
  assert.deepEqual(identity.said, ['a token'], 'the code was taken once, with what the challenge was made of');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  // A code that nobody here has asked for signs nobody in, and it is said.
  await page.goto(`${server.base}/session/callback?code=stolen&state=made-up`);
  await page.getByRole('alert').getByText(/has not signed you in/).waitFor();
  assert.equal((await page.context().cookies()).filter(({ name }) => name === 'streamview_session').length, 0);
  assert.deepEqual(identity.said, ['a token'], 'it was not even shown to the provider');
  await close();
});

test('a reader sees which orders are held, without being an operator', async () => {
  const { page, close } = await open('/ui/orders?sort=orderId', { expected: [/401/] });
  const held = (await (await fetch(`${server.base}/ops/held?pageSize=200`, { headers: { 'x-api-key': keys.operator } })).json()).items.map(({ key }) => key);
  await page.getByLabel('API key').fill(keys.reader);
  await page.keyboard.press('Enter');
  await page.locator('table').waitFor();
  // One that has a row, on a page of its own.
  const row = await until('a held order that has a row', async () => {
    for (const id of held) if ((await fetch(`${server.base}/orders/${id}`, { headers: { 'x-api-key': keys.reader } })).status === 200) return id;
    return null;
  });
  const { customerId } = await (await fetch(`${server.base}/orders/${row}`, { headers: { 'x-api-key': keys.reader } })).json();
  await page.getByLabel('Customer', { exact: true }).fill(customerId);
  await page.keyboard.press('Enter');
  await page.locator(`tr[data-order="${row}"]`).getByRole('link', { name: 'held' }).click();
  await page.getByText('An operator can repair it.').waitFor();
  await page.getByText(/ has not arrived| was refused/).first().waitFor();
  await close();
});

test('a session that ends is told, keeps what was written, and goes on after signing in again', async () => {
  const { page, close } = await open('/ui/operations/builds', { expected: [/401/] });
  const enter = async () => {
    await page.getByLabel('API key').fill(keys.passing);
    await page.keyboard.press('Enter');
  };
  await enter();
  await page.getByRole('button', { name: 'Verify …' }).click();
  await page.getByLabel('Why', { exact: true }).fill('half a sentence');
  // The instance forgets it, as after twelve hours.
  const [session] = (await page.context().cookies()).filter(({ name }) => name === 'streamview_session');
  assert.equal((await fetch(`${server.base}/session`, { method: 'DELETE', headers: { cookie: `streamview_session=${session.value}`, origin: server.base } })).status, 204);
  const told = page.getByText('The session of passing has ended.');
  await told.waitFor();
  assert.equal(await page.getByLabel('Why', { exact: true }).inputValue(), 'half a sentence');
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Sign in again' }).waitFor();
  await page.getByRole('region', { name: 'Builds of orders' }).waitFor();
  await accessible(page);
  await picture(page, 'session-ended');
  await page.getByRole('button', { name: 'Sign in again' }).click();
  await enter();
  await told.waitFor({ state: 'detached' });
  await page.locator('.who', { hasText: 'passing' }).waitFor();
  await page.getByText('connected', { exact: true }).first().waitFor();
  await close();
});

test('who signs in again at the identity provider finds what was written, and what stood behind #', async () => {
  const { page, close } = await open('/ui/operations/decisions?action=skip#key=order-7', { expected: [/401/], also: [identity.issuer] });
  await page.getByRole('link', { name: 'Sign in at localhost' }).click();
  await page.getByRole('link', { name: 'Go on as ada' }).click();
  await page.waitForURL(`${server.base}/ui/operations/decisions?action=skip#key=order-7`);
  await until('the filter is that of the address', async () => (await page.getByLabel('Order', { exact: true }).inputValue()) === 'order-7');
  assert.equal(await page.evaluate(() => JSON.stringify(sessionStorage)), '{}', 'nothing of it stays');
  await page.getByRole('link', { name: 'Builds' }).click();
  await page.getByRole('button', { name: 'Verify …' }).click();
  const why = page.getByLabel('Why', { exact: true });
  await why.fill('half a sentence');
  const [session] = (await page.context().cookies()).filter(({ name }) => name === 'streamview_session');
  assert.equal((await fetch(`${server.base}/session`, { method: 'DELETE', headers: { cookie: `streamview_session=${session.value}`, origin: server.base } })).status, 204);
  // The way in stands where somebody writes, and opens over it.
  const dialog = page.getByRole('dialog', { name: /^Verify/ });
  await dialog.getByText('The session has ended.').waitFor();
  await accessible(page);
  await dialog.getByRole('button', { name: 'Sign in again' }).click();
  const opened = page.context().waitForEvent('page');
  await page.getByRole('link', { name: 'Sign in at localhost' }).click();
  const provider = await opened;
  await provider.getByRole('link', { name: 'Go on as ada' }).click();
  await page.getByText('The session of ada has ended.').waitFor({ state: 'detached' });
  await page.getByRole('dialog', { name: 'Sign in again' }).waitFor({ state: 'detached' });
  assert.equal(await why.inputValue(), 'half a sentence');
  await page.keyboard.press('Escape');
  await page.locator('.who', { hasText: 'ada' }).waitFor();
  await page.getByText('connected', { exact: true }).first().waitFor();
  await close();
});

test('a look for the session that fails is made again, and signing out that fails is said', async () => {
  const { page, close } = await open('/ui/THIRD-PARTY.txt', { expected: [/401/, /ERR_FAILED/], hasIcon: false });
  await page.route('**/session', (route) => route.abort(), { times: 1 });
  await page.goto(`${server.base}/ui/orders`);
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await page.getByLabel('API key').fill(keys.passing);
  await page.keyboard.press('Enter');
  await page.locator('table').waitFor();
  await page.locator('.who', { hasText: 'passing' }).waitFor();

  await page.route('**/session', (route) => route.abort());
  await page.getByRole('button', { name: 'Sign out' }).click();
  const dialog = page.getByRole('dialog', { name: 'You are still signed in' });
  await dialog.getByText(/StreamView does not answer/).waitFor();
  await accessible(page);
  await page.keyboard.press('Escape');
  // The session ends while nobody can look: who is at work keeps the page, and is told as soon as it is known.
  await page.getByRole('link', { name: 'Operations' }).click();
  await page.getByRole('region', { name: 'Partitions' }).waitFor();
  const [session] = (await page.context().cookies()).filter(({ name }) => name === 'streamview_session');
  const looked = page.waitForRequest('**/session');
  assert.equal((await fetch(`${server.base}/session`, { method: 'DELETE', headers: { cookie: `streamview_session=${session.value}`, origin: server.base } })).status, 204);
  await looked;
  await page.locator('.who', { hasText: 'passing' }).waitFor();
  await page.unroute('**/session');
  await page.getByText('The session of passing has ended.').waitFor();
  await page.getByRole('button', { name: 'Sign in again' }).click();
  await page.getByLabel('API key').fill(keys.passing);
  await page.keyboard.press('Enter');
  await page.locator('.who', { hasText: 'passing' }).waitFor();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await close();
});
