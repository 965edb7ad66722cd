// What other programs leave on a real Kafka, as the console shows it: who reads a stream, dead letters of two topics, and records
// with headers and schemas. A client that is not ours is the other program.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import kafkajs from 'kafkajs';
import { accessible, browse, command, engines, picture, run, textOf, until } from './browser.mjs';

const { Kafka, logLevel } = kafkajs;
let world, base, browser, open, kafka, admin, reader, projector;
const api = async (path, options) => {
  const answer = await fetch(base + path, options);
  assert.ok(answer.ok, `${path}: ${answer.status} ${answer.ok ? '' : await answer.text()}`);
  return answer.json();
};
const post = (path, body) => api(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
const rows = (page) => page.locator('.grid-body .grid-row');

before(async () => {
  world = await engines({ rate: 40, servers: ['--registry'] });
  ({ base } = world);
  kafka = new Kafka({ brokers: [world.env.STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS], logLevel: logLevel.NOTHING });
  admin = kafka.admin();
  await admin.connect();
  browser = await browse(base);
  ({ open } = browser);
});
after(async () => {
  await browser?.close();
  await reader?.disconnect();
  await projector?.stop();
  await admin?.disconnect();
  await world?.stop();
});

/** A stream that runs and has written something. */
async function deployed(name, sqlScript) {
  const { id, outputTopic } = await post('/api/streams', { name, sqlScript });
  await post(`/api/streams/${id}/deploy`, {});
  await until(`${name} writes`, async () => (await admin.listTopics()).includes(outputTopic) && (await admin.fetchTopicOffsets(outputTopic)).some(({ offset }) => Number(offset) > 0));
  return { id, topic: outputTopic };
}

test('who reads a stream is seen: who reads it now, who has read it, and who does not tell', async () => {
  const [read, unread] = await Promise.all([deployed('Dear', 'SELECT ORDER_ID, AMOUNT FROM orders WHERE AMOUNT > 100'), deployed('Cheap', 'SELECT ORDER_ID, AMOUNT FROM orders WHERE AMOUNT < 500')]);
  reader = kafka.consumer({ groupId: 'accounting' });
  await reader.connect();
  await reader.subscribe({ topic: read.topic, fromBeginning: true });
  const joined = new Promise((resolve) => reader.on(reader.events.GROUP_JOIN, resolve));
  await reader.run({ autoCommit: false, eachMessage: async () => undefined });
  await joined;
  // It has read two records of each partition, and nobody is there any more.
  const offsets = await admin.fetchTopicOffsets(read.topic);
  await admin.setOffsets({ groupId: 'monthly-report', topic: read.topic, partitions: offsets.map(({ partition, offset }) => ({ partition, offset: String(Math.min(2, Number(offset))) })) });

  const { page, close } = await open(`/ui/streams/${read.id}`);
  // The brokers are asked once in ten seconds: what was told is what has to be shown.
  const told = page.waitForResponse('**/consumers');
  await page.getByRole('link', { name: 'Consumers', exact: true }).click();
  await page.waitForURL(/show=consumers/);
  const { items } = await (await told).json();
  const table = page.getByRole('region', { name: 'Consumers of the stream' });
  await table.waitFor();
  const shown = async (group) => table.getByRole('row', { name: new RegExp(`^${group} `) }).getByRole('cell').allTextContents();
  assert.deepEqual(await shown('accounting'), ['accounting', 'Stable', '1', 'no position yet']);
  const { lag } = items.find(({ group }) => group === 'monthly-report');
  assert.ok(lag > 0, `${lag} records are not read yet`);
  assert.deepEqual(await shown('monthly-report'), ['monthly-report', 'Empty', '0', lag.toLocaleString('en-GB')]);
  await accessible(page);
  await picture(page, 'consumers');

  await page.goto(`${base}/ui/streams/${unread.id}?show=consumers`);
  await page.getByText(/No consumer group reads/).waitFor();
  await page.getByRole('link', { name: unread.topic }).first().waitFor();
  await accessible(page);
  // Brokers that do not tell are named, as that of the playground, and groups that were not asked are counted.
  const answer = { topic: unread.topic, items: [], notAsked: 0, observedAt: '2026-11-29T10:00:00Z', trouble: 'this broker cannot list consumer groups' };
  await page.route('**/consumers', (route) => route.fulfill({ contentType: 'application/json', body: JSON.stringify(answer) }));
  await page.reload();
  await page.getByText(`Who reads ${unread.topic} is not known: this broker cannot list consumer groups.`).waitFor();
  Object.assign(answer, { trouble: null, notAsked: 1234, items: [{ group: 'hidden', state: 'not told', members: null, lag: null, trouble: 'grant DESCRIBE on it' }] });
  await page.reload();
  await page.getByText(/1,234 more groups were not asked/).waitFor();
  assert.deepEqual(await shown('hidden'), ['hidden', 'not told', 'not told', 'grant DESCRIBE on it']);
  await close();
});

test('dead letters of two topics are told apart, and decided about alone', async () => {
  const [ours, theirs] = ['orders.events', 'orders.eu'];
  await admin.createTopics({ topics: [`${ours}.dlq`, `${theirs}.dlq`].map((topic) => ({ topic, numPartitions: 1 })) });
  await command(['seed', '--topic', ours, '--partitions', '1', '--orders', '30', '--poison', '0.06', '--seed', '1'], world.env);
  projector = await run(['serve', '--only', 'projector'], { ...world.env, STREAMVIEW_HTTP__BIND: '127.0.0.1:0' }, /serving http/);
  const letters = async (topic) => (await api('/ops/dead-letters/topics')).items.find((one) => one.topic === topic)?.letters ?? 0;
  const [{ offset: last }] = await admin.fetchTopicOffsets(ours);
  await until('all is applied, and what was refused is on the topic of dead letters', async () => {
    const { views: [{ conservation }] } = await api('/ops/consumer');
    return conservation?.consumed >= Number(last) && Number((await admin.fetchTopicOffsets(`${ours}.dlq`))[0].offset) === (await letters(ours));
  });
  const here = await letters(ours);
  assert.ok(here > 5, `${here} letters`);
  // Another installation has refused events of its own orders; its letters are taken over.
  const there = 5;
  await copy(`${ours}.dlq`, `${theirs}.dlq`, there, ({ key, headers, ...rest }) => ({ ...rest, key: key && `eu-${key}`, headers: { ...headers, 'x-original-topic': theirs } }));
  assert.match(await command(['dlq', 'import', '--topic', `${theirs}.dlq`], world.env), /^5 read, 5 imported/);

  const { page, close } = await open('/ui/operations/letters');
  const list = page.getByRole('region', { name: 'Dead letters' });
  await list.waitFor();
  const topic = page.getByRole('combobox', { name: 'Topic', exact: true });
  await until('both are offered, with how many', async () => {
    const offered = await topic.locator('option').allTextContents();
    return offered.length === 3 && offered[0] === 'any topic' && offered.includes(`${ours}, ${here}`) && offered.includes(`${theirs}, ${there}`);
  });
  const places = () => list.locator('tbody tr td:nth-child(7)').allTextContents();
  const all = await places();
  assert.equal(all.length, here + there);
  assert.ok(all.every((place) => /^orders\.(events|eu)\/0\/\d+$/.test(place)), all.join());
  await accessible(page);
  await picture(page, 'letters');
  await topic.selectOption(theirs);
  await page.waitForURL(/letters\?topic=orders\.eu$/);
  await until('only those', async () => (await places()).length === there);
  // Of one topic its name stands in the filter alone.
  assert.ok((await places()).every((place) => /^0\/\d+$/.test(place)));
  await page.reload();
  await list.waitFor();
  assert.equal(await topic.inputValue(), theirs);
  assert.equal((await places()).length, there);
  await page.getByRole('button', { name: 'Skip all that match …' }).click();
  await page.getByLabel('Why', { exact: true }).fill('they are repaired there');
  await page.getByRole('button', { name: 'Tell how many' }).click();
  const told = await post('/ops/dead-letters/skip?dry_run=true', { reason: 'to see', filter: { topic: theirs } });
  assert.deepEqual([told.matched, told.possible > 0], [there, true]);
  await page.getByText(`${there} match; ${told.possible} would be decided`).waitFor();
  await page.getByText(/Of every one that matches status open, topic orders\.eu\./).waitFor();
  await page.getByRole('button', { name: `Skip ${told.possible}`, exact: true }).click();
  await page.getByText(`${told.possible} letters decided.`).waitFor();
  await page.getByRole('button', { name: 'Done' }).click();
  await until('they are gone', async () => (await places()).length === there - told.possible);
  assert.equal(await topic.inputValue(), theirs);
  assert.deepEqual([await letters(ours), await letters(theirs)], [here, there - told.possible]);
  // What is filtered by stays an option, whether there is such a letter or not.
  await page.goto(`${base}/ui/operations/letters?topic=orders.gone`);
  await page.getByText('No dead letter matches.').waitFor();
  assert.equal(await topic.inputValue(), 'orders.gone');
  await close();
});

test('records are shown with their headers and the id of their schema, and a new schema is marked where it begins', async () => {
  const registered = async (fields) => (await (await fetch(`${world.env.STREAMVIEW_SCHEMA_REGISTRY__URL}/subjects/framed-value/versions`, {
    method: 'POST', headers: { 'content-type': 'application/vnd.schemaregistry.v1+json' },
    body: JSON.stringify({ schema: JSON.stringify({ type: 'record', name: 'Sold', fields: fields.map((name) => ({ name, type: 'string', default: '' })) }) }),
  })).json()).id;
  const [one, two] = [await registered(['sku']), await registered(['sku', 'shop'])];
  assert.ok(one > 0 && two > one, `${one}, ${two}`);
  // Confluent's frame: a zero, the id, and the record in Avro, whose texts are short here.
  const framed = (id, ...texts) => {
    const frame = Buffer.from([0, 0, 0, 0, 0, ...texts.flatMap((text) => [text.length * 2, ...Buffer.from(text)])]);
    frame.writeInt32BE(id, 1);
    return frame;
  };
  await admin.createTopics({ topics: [{ topic: 'framed', numPartitions: 1 }] });
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({ topic: 'framed', messages: [
    { key: 'a', value: framed(one, 'tea'), headers: { 'x-shop': 'north', trace: Buffer.from([0xff, 0]) } },
    { key: 'b', value: framed(one, 'milk'), headers: { empty: '', long: 'x'.repeat(600) } },
    { key: 'c', value: framed(two, 'tea', 'south'), headers: Object.fromEntries(Array.from({ length: 40 }, (_, at) => [`h${at}`, String(at)])) },
    { key: 'd', value: '{"sku":"plain"}' },
  ] });
  await producer.disconnect();

  const { page, close } = await open('/ui/topics/framed/live?from=earliest');
  await rows(page).nth(4).waitFor();
  assert.deepEqual(await page.getByRole('columnheader').allTextContents(), ['Time', 'Partition', 'Offset', 'Key', 'Schema', 'Headers', 'Value']);
  const cells = async (at) => (await rows(page).nth(at).getByRole('gridcell').allTextContents()).slice(3);
  assert.deepEqual(await cells(0), ['a', String(one), 'x-shop: north, trace: base64 /wA=', '{"sku":"tea"}']);
  const [, , headers] = await cells(1);
  assert.match(headers, /^empty: "", long: x{300,} ?…?/);
  assert.deepEqual(await rows(page).nth(2).getByRole('gridcell').allTextContents(), [`Partition 0 goes on with schema ${two}, after ${one}`]);
  const [key, schema, many, value] = await cells(3);
  assert.deepEqual([key, schema, value], ['c', String(two), '{"sku":"tea","shop":"south"}']);
  const { moreHeaders } = await record(2);
  assert.ok(moreHeaders > 0 && many.startsWith('h0: 0, h1: 1'), many);
  assert.deepEqual(await cells(4), ['d', 'none', 'none', '{"sku":"plain"}']);
  // The record has them whole, and they are found by.
  await rows(page).nth(0).click();
  const picked = page.getByRole('complementary', { name: 'The picked row' });
  await picked.getByText('schemaId:').waitFor();
  await picked.getByText(`${one}`, { exact: true }).first().waitFor();
  await accessible(page);
  await picture(page, 'headers');
  await page.getByRole('searchbox', { name: 'Find in what is kept' }).fill('north');
  await until('only the row that has it', async () => (await rows(page).count()) === 1);
  assert.equal((await cells(0))[0], 'a');
  await close();
});

test('a download has every digit, and nothing that a spreadsheet would run', async () => {
  await admin.createTopics({ topics: [{ topic: 'exact', numPartitions: 1 }] });
  const producer = kafka.producer();
  await producer.connect();
  // A number that a double would round comes as text.
  const [sent, value] = ['{"id":12345678901234567890,"amount":1.10,"note":"=1+1"}', '{"id":"12345678901234567890","amount":1.10,"note":"=1+1"}'];
  const keys = ['=HYPERLINK("http://evil")', '-1.50', '+1+cmd', '@sum', '\ttab', 'plain'];
  await producer.send({ topic: 'exact', messages: keys.map((key) => ({ key, value: sent })) });
  await producer.disconnect();
  await api('/api/catalog/exact', { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ topic: 'exact', format: 'json', columns: [{ name: 'id', type: 'bigint' }] }) });
  const { page, close } = await open('/ui/topics/exact/live?from=earliest');
  await until('all have come', async () => (await rows(page).count()) === keys.length);
  const given = async (name) => {
    const file = page.waitForEvent('download');
    await page.getByRole('button', { name, exact: true }).click();
    return textOf(await file);
  };
  const lines = (await given('JSON lines')).trim().split('\n');
  assert.equal(lines.length, keys.length);
  for (const line of lines) assert.ok(line.includes(`"value":${value}`), line);
  assert.deepEqual(lines.map((line) => JSON.parse(line).key), keys, 'there it is as it was sent');
  const csv = (await given('CSV')).trim().split('\r\n');
  assert.equal(csv.length, keys.length + 1);
  const names = csv[0].split(',');
  for (const line of csv.slice(1)) assert.ok(line.includes(`"${value.replaceAll('"', '""')}"`), line);
  const key = names.indexOf('key');
  const before = new RegExp(`^(?:[^,]*,){${key}}`);
  const told = csv.slice(1).map((line) => line.replace(before, ''));
  const cells = [`"'=HYPERLINK(""http://evil"")"`, '-1.50', "'+1+cmd", "'@sum", "'\ttab", 'plain'];
  told.forEach((line, at) => assert.ok(line.startsWith(`${cells[at]},`), line));
  await close();
});

/** The first records of a topic, changed. */
async function copy(from, to, most, change) {
  const [producer, consumer] = [kafka.producer(), kafka.consumer({ groupId: `copies ${from}`, maxWaitTimeInMs: 100 })];
  await Promise.all([producer.connect(), consumer.connect()]);
  await consumer.subscribe({ topic: from, fromBeginning: true });
  const found = await new Promise((resolve) => {
    const all = [];
    void consumer.run({ autoCommit: false, eachMessage: async ({ message: { key, value, headers } }) => all.push(change({ key, value, headers })) === most && resolve(all.slice(0, most)) });
  });
  await producer.send({ topic: to, messages: found.slice(0, most) });
  await Promise.all([producer.disconnect(), consumer.disconnect()]);
}

/** A record of the topic `framed`, as the API tells it. */
async function record(offset) {
  const answer = await fetch(`${base}/api/topics/framed/rows?from=earliest`, { headers: { accept: 'text/event-stream' } });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    assert.ok(!done, 'the record comes');
    text += value;
    const found = text.split('\n').filter((line) => line.startsWith('data:')).map((line) => JSON.parse(line.slice(5))).find((row) => row.offset === offset);
    if (found) {
      await reader.cancel();
      return found;
    }
  }
}
