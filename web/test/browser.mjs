// What the page tests stand on: the program with its own broker and database, and a browser in which nothing may go wrong.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { small } from './png.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const program = process.env.STREAMVIEW ?? join(here, '../../target/debug/streamview');
const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/** Runs the program; resolves once it prints what is awaited. It is ended with `stop`, or with the test that started it. */
export async function run(args, env, awaited) {
  assert.ok(existsSync(program), `${program} is not there; build it first, or name another one in STREAMVIEW`);
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const found = new Promise((resolve, reject) => {
    const take = (piece) => {
      out += piece;
      const match = awaited.exec(out);
      if (match) resolve(match);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('exit', (code) => reject(new Error(`${args.join(' ')} ended with ${code}:\n${out}`)));
  });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  void ended.then(() => process.off('exit', kill));
  const match = await found;
  const stop = async (signal = 'SIGTERM') => {
    child.kill(signal);
    await ended;
  };
  return { match, out: () => out, signal: (name) => child.kill(name), stop, ended };
}

/** The playground, with where its console, its database and its Kafka are. */
export async function playground(env = {}, args = []) {
  const started = await run(['playground', '--no-open', ...args], { STREAMVIEW_HTTP__BIND: '127.0.0.1:0', ...env }, /Everything is in memory/);
  const of = (pattern) => pattern.exec(started.out())[1];
  const base = of(/Console +(http\S+)\/ui\//);
  return { ...started, base, database: of(/psql (\S+)/), kafka: of(/Kafka +(\S+:\d+)/) };
}

/** A port that nobody has just now. */
export function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** Kafka, the stand-in for ksqlDB and a database, and more servers if asked for; purchases at a rate, declared as a source; and an instance that can be started anew. */
export async function engines({ rate, env: more = {}, servers: others = [] }) {
  const servers = await run(['servers', '--ksqldb', ...others], {}, /DATABASE__URL=\S+\n/);
  const env = { ...more };
  for (const line of servers.out().split('\n')) {
    if (line.startsWith('STREAMVIEW_')) env[line.slice(0, line.indexOf('='))] = line.slice(line.indexOf('=') + 1);
  }
  const port = await freePort();
  const base = `http://127.0.0.1:${port}`;
  env.STREAMVIEW_HTTP__BIND = `127.0.0.1:${port}`;
  await (await run(['migrate'], env, /\n$/)).ended;
  const purchases = await run(['purchases', '--rate', String(rate)], env, /publishing/);
  const serve = () => run(['serve', '--only', 'api'], env, /serving http/);
  const world = { base, env, serve, service: await serve() };
  const columns = [['ORDER_ID', 'bigint'], ['CUSTOMER_ID', 'bigint'], ['PRODUCT', 'string'], ['AMOUNT', 'double'], ['PURCHASE_DATE', 'string']].map(([name, type]) => ({ name, type }));
  const declared = await fetch(`${base}/api/catalog/orders`, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ topic: 'orders', format: 'json', columns }) });
  assert.equal(declared.status, 200);
  world.stop = async () => {
    await world.service.stop();
    await purchases.stop();
    await servers.stop();
  };
  return world;
}

/** What a command of the program prints. */
export async function command(args, env) {
  const running = await run(args, env, /\n$/);
  await running.ended;
  return running.out();
}

/** A browser; `open` gives a page of `base` in which every console message, foreign request and violation is a fault. */
export async function browse(base) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'], timeout: 60_000 });
  async function open(path, { expected = [], also = [], hasIcon = true, ...options } = {}) {
    const context = await browser.newContext({ reducedMotion: 'reduce', timezoneId: 'Europe/Berlin', locale: 'en-GB', viewport: { width: 1280, height: 850 }, ...options });
    context.setDefaultTimeout(30_000);
    const page = await context.newPage();
    const wrong = [];
    page.on('console', (message) => {
      const isExpected = /inline style violates/.test(message.text()) || expected.some((pattern) => pattern.test(message.text()));
      // A text names no icon, and a browser that has the time asks for one that is not there.
      const isIcon = !hasIcon && message.location().url === `${base}/favicon.ico`;
      if (['error', 'warning'].includes(message.type()) && !isExpected && !isIcon) wrong.push(`${message.text()} ${message.location().url}`);
    });
    page.on('pageerror', (error) => wrong.push(error.message));
    page.on('request', (request) => {
      if (![base, 'data:', ...also].some((start) => request.url().startsWith(start))) wrong.push(`left the host: ${request.url()}`);
    });
    await page.addInitScript(() => {
      window.violations = [];
      document.addEventListener('securitypolicyviolation', (event) => {
        const isKnown = event.effectiveDirective === 'style-src-attr' && event.composedPath()[0].classList?.contains('cm-line');
        if (!isKnown) window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
      });
    });
    await page.goto(base + path);
    const close = async () => {
      assert.deepEqual(await page.evaluate(() => window.violations), []);
      assert.deepEqual(wrong, []);
      await context.close();
    };
    return { page, close };
  }
  return { open, close: () => browser.close() };
}

/** No fault that axe knows, in light and in dark. */
export async function accessible(page) {
  await page.evaluate(axeSource);
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    const { violations } = await page.evaluate((rules) => axe.run(document, { runOnly: rules }), RULES);
    const told = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.target.join(' ')).slice(0, 4).join(', ')}`);
    assert.deepEqual(told, [], `${page.url()}, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
}

/** A picture for people to look at, where they ask for one; small enough for docs/screenshots. */
export async function picture(page, name) {
  const folder = process.env.SCREENSHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  for (const [width, height] of [[1280, 850], [400, 850]]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      writeFileSync(join(folder, `${name}-${width}-${colorScheme}.png`), small(await page.screenshot({ caret: 'initial' })));
    }
  }
  await page.setViewportSize({ width: 1280, height: 850 });
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
}

/** What was downloaded. */
export async function textOf(download) {
  return readFileSync(await download.path(), 'utf8');
}

/** Asks until it is so. */
export async function until(what, probe, ms = 60_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await probe();
    if (found) return found;
    assert.ok(Date.now() < end, `not within ${ms / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
