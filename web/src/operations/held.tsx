// Orders that wait for an event: all of them, and one with what can be done.
import { useState } from 'preact/hooks';
import { useAsk } from '../api';
import { faithful, pretty } from '../json';
import { missing, type HeldKey } from '../orders/model';
import { Record } from '../record';
import { change, narrow, place, to } from '../router';
import { Time } from '../time';
import { Act, Between, bytes, CopyCurl, count, Empty, Pager, Shown, State, Table, Typed } from '../widgets';
import { useAges } from './ages';
import { Decide, DecideMany } from './decide';
import { Decided } from './decisions';
import { Letters as LetterRows, Steps } from './letters';
import { words, type Decision, type Letter, type NextStep, type Payload } from './model';

const REASONS = ['gap', 'poison', 'event_id_reused', 'conflict'];

export function HeldList({ changed }: { changed: () => void }) {
  const { query, hash } = place.value;
  const [reasons, key, proven] = [query.getAll('reason'), hash.get('key') ?? '', query.get('proven') ?? ''];
  const { at, ...ages } = useAges();
  const asked = new URLSearchParams({ pageSize: '50' });
  for (const reason of reasons) asked.append('reason', reason);
  if (key) asked.set('key', key);
  if (proven) asked.set('proven', proven);
  for (const [name, age] of Object.entries(ages)) asked.set(name, age);
  const cursor = query.get('cursor');
  if (cursor) asked.set('cursor', cursor);
  const list = useAsk<{ items: HeldKey[] }>(`/ops/held?${asked}`, { every: 3000 });
  const [many, setMany] = useState(false);
  const filter = { ...(reasons.length > 0 ? { reason: reasons } : {}), ...(key ? { key } : {}), ...(proven ? { proven: proven === 'true' } : {}) };
  return (
    <>
      <div class="filters">
        <fieldset class="toggles">
          <legend>Held for</legend>
          {REASONS.map((reason) => (
            <button type="button" key={reason} aria-pressed={reasons.includes(reason)} onClick={() => narrow({ reason: reasons.includes(reason) ? reasons.filter((one) => one !== reason) : [...reasons, reason] })}>{words(reason)}</button>
          ))}
        </fieldset>
        <Typed label="Order" data-filter value={key} placeholder="order-1" set={(key) => narrow({}, { key })} />
        <label><span>Missing event</span>
          <select value={proven} onChange={(event) => narrow({ proven: event.currentTarget.value })}>
            <option value="">any</option><option value="true">proven not to be in the log</option><option value="false">may still be in the log</option>
          </select>
        </label>
        <Between label="Held" from={query.get('from') ?? ''} to={query.get('to') ?? ''} />
        <div class="tools">
          <Act right="decide" onClick={() => setMany(true)} why={list.data?.items.length === 0 ? 'No order matches.' : ''}>Skip all that match …</Act>
          <CopyCurl path={`/ops/held?${asked}`} what="held orders" />
        </div>
      </div>
      <Shown of={list} what="held orders">
        {({ items }) => items.length === 0 ? (
          <Empty>{at !== null || Object.keys(filter).length > 0 ? 'No held order matches.' : 'No order is held: nothing waits.'}</Empty>
        ) : (
          <Table label="Held orders">
            <thead><tr><th scope="col">Order</th><th scope="col">What is missing</th><th scope="col" class="num">From</th><th scope="col" class="num">To</th><th scope="col" class="num">Parked</th><th scope="col" class="num">Bytes</th><th scope="col">Since</th><th scope="col">Flags</th></tr></thead>
            <tbody>
              {items.map((held) => (
                <tr key={held.key}>
                  <td><a class="mono" href={to(['operations', 'held', held.key])}>{held.key}</a></td>
                  <td class="wide">{missing(held)}</td>
                  <td class="num">{held.missingFrom}</td>
                  <td class="num">{held.missingTo ?? <span class="nothing">open</span>}</td>
                  <td class="num">{held.parkedCount}</td>
                  <td class="num">{bytes(held.parkedBytes)}</td>
                  <td><Time at={held.since} /></td>
                  <td>{held.decided && <span class="flag">decided</span>}{held.provenAt && <span class="flag" title="Every partition was read past it.">not in the log</span>}</td>
                </tr>
              ))}
            </tbody>
          </Table>
        )}
      </Shown>
      <Pager asked={list} go={(cursor) => change({ cursor, at: cursor && at }, { replace: false })} />
      {many && <DecideMany title="Skip what held orders wait for" path="/ops/held/skip" filter={filter} what="orders" verb="Skip" close={() => setMany(false)} done={() => {
        list.again();
        changed();
      }} />}
    </>
  );
}

interface Detail extends HeldKey {
  refused: number[];
  parked: { sequence: number; eventId: string; type: string | null; occurredAt: string | null; partition: number; offset: number; parkedAt: string; payload: Payload }[];
  deadLetters: Letter[];
  decisions: Decision[];
  next: NextStep[];
}

export function HeldDetail({ id, changed }: { id: string; changed: () => void }) {
  const path = `/ops/held/${encodeURIComponent(id)}`;
  const [free, setFree] = useState(false);
  const asked = useAsk<Detail>(path, { every: free ? 0 : 2000 });
  if (!free && asked.error?.status === 404) setFree(true);
  const [skip, setSkip] = useState<NextStep | null>(null);
  const [open, setOpen] = useState<number | null>(null);
  const again = () => {
    asked.again();
    changed();
  };
  const parked = asked.answer ? faithful<Detail>(asked.answer.text).parked : [];
  return (
    <>
      <div class="head">
        <h2 class="mono">{id}</h2>
        <span><a href={to(['orders', id])}>The order</a> · <a href={to(['operations', 'held'])}>All held orders</a></span>
        <div class="tools"><CopyCurl path={path} what="this held order" /></div>
      </div>
      {free ? (
        <div class="note good" role="status"><p><strong>The order is not held{asked.data ? ' any more' : ''}: it waits for nothing.</strong></p>
          <p><a href={to(['orders', id])}>See the order</a> or <a href={to(['operations', 'decisions'], {}, { key: id })}>what was decided about it</a>.</p></div>
      ) : (
        <Shown of={asked} what="the held order">
          {(held) => (
            <>
              <div class="note"><p><strong>{missing(held)}</strong> Since <Time at={held.since} />.{held.provenAt && ' It is proven that it is not in the log.'}{held.decided && ' Somebody has decided; it takes effect within about a second.'}</p></div>
              <h3>What can be done</h3>
              <Steps steps={held.next} letter={held.deadLetters.find((letter) => letter.sequence === held.missingFrom)} done={again} skipHeld={setSkip} />
              {held.deadLetters.length > 0 && (<><h3>Refused records of this order</h3><LetterRows items={held.deadLetters} /></>)}
              <h3>Parked behind it</h3>
              {held.parked.length === 0 ? <Empty>No later event has come yet.</Empty> : (
                <Table label="Parked events">
                  <thead><tr><th scope="col" class="num">Number</th><th scope="col">Event</th><th scope="col">Happened</th><th scope="col">Parked</th><th scope="col" class="num">Partition/offset</th><th scope="col">Payload</th></tr></thead>
                  <tbody>
                    {parked.map((event) => [
                      <tr key={event.sequence}>
                        <td class="num">{event.sequence}</td><td>{event.type ?? <span class="nothing">not known</span>}</td><td><Time at={event.occurredAt} /></td><td><Time at={event.parkedAt} /></td>
                        <td class="num">{event.partition}/{event.offset}</td>
                        <td><button type="button" class="quiet" aria-expanded={open === event.sequence} onClick={() => setOpen(open === event.sequence ? null : event.sequence)}>{bytes(event.payload.bytes)}<span class="unseen"> of event {event.sequence}</span></button></td>
                      </tr>,
                      open === event.sequence ? <tr key="payload"><td colSpan={6}><Record text={textOf(event.payload)} label={`payload of event ${event.sequence}`} /></td></tr> : null,
                    ])}
                  </tbody>
                </Table>
              )}
              {held.parkedCount > held.parked.length && <p class="small muted">The first {count(held.parked.length)} of {count(held.parkedCount)} are shown.</p>}
              {held.decisions.length > 0 && (<><h3>Decisions about it</h3><Decided items={held.decisions} /></>)}
            </>
          )}
        </Shown>
      )}
      {skip && (
        <Decide title={`Skip what ${id} waits for`} path={skip.href} verb="Skip" danger close={() => setSkip(null)} done={again}
          body={{ from: skip.body?.from, to: skip.body?.to }}
          effect={<p>The order {skip.effect}. If the missing event comes later, it is passed over.</p>} />
      )}
    </>
  );
}

/** A payload as text: JSON with a line for each value, else what is readable of it, else its bytes. */
export function textOf(payload: Payload | null): string {
  if (!payload) return '';
  if (payload.json !== undefined) return pretty(JSON.stringify(payload.json));
  return payload.text ?? payload.base64 ?? '';
}

export function Status({ of }: { of: string }) {
  const kinds: { [status: string]: 'good' | 'wait' | 'bad' | 'idle' } = { open: 'bad', deciding: 'wait', pending: 'wait', refused: 'bad', revoked: 'bad', effective: 'good', done: 'good', replaced: 'good', redriven: 'good', skipped: 'idle' };
  return <State kind={kinds[of] ?? 'idle'}>{words(of)}</State>;
}
