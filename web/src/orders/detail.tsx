// One order: what it is, what it waits for, how it came to be, and how it was.
import { useEffect, useState } from 'preact/hooks';
import { linked, useAsk, type Answer } from '../api';
import { follow } from '../live';
import { faithful, pretty } from '../json';
import { Record } from '../record';
import { change, place, to } from '../router';
import { may } from '../session';
import { Time } from '../time';
import { bytes, Copy, CopyCurl, count, Failure, Shown, State, Table, Value } from '../widgets';
import { kindOf, missing, type Held, type OrderEvent, type Whole } from './model';

interface HeldDetail {
  missingFrom: number;
  missingTo: number | null;
  since: string;
  parked: { sequence: number; eventId: string; type: string | null; occurredAt: string | null; partition: number; offset: number; parkedAt: string; payload: { json?: unknown; text?: string; bytes: number } }[];
  deadLetters: { id: number; sequence: number | null; reason: string; error: string; status: string; partition: number; offset: number; createdAt: string }[];
}

export function Detail({ id }: { id: string }) {
  const path = `/orders/${encodeURIComponent(id)}`;
  const asOf = place.value.query.get('asOf');
  const now = useAsk<Whole>(path);
  const then = useAsk<Whole>(asOf ? `${path}?asOfSequence=${asOf}` : null);
  const shown = asOf ? then : now;
  const events = useAsk<{ items: OrderEvent[] }>(`${path}/events?pageSize=200`);
  const heldNow = now.data?.held ?? (now.error?.body.held as Held | undefined) ?? null;
  const unknown = now.error?.code === 'order_not_found' && !now.data;
  const held = useAsk<HeldDetail>(heldNow && may('operate') ? `/ops/held/${encodeURIComponent(id)}` : null);
  // What is known of a hold outlives it: what it waited for is missing no more, and what was parked is told as applied.
  const waits = heldNow && held.answer && !held.isOther ? faithful<HeldDetail>(held.answer.text) : undefined;
  useEffect(() => follow({
    path: `${path}/changes`,
    open: (resumed) => !resumed && now.again(),
    event: ({ name }) => {
      if (name !== 'order') return;
      now.again();
      events.again();
      held.again();
    },
  }), [path]);
  return (
    <section>
      <div class="head">
        <h1 class="mono">{id}</h1>
        {shown.data && !shown.isOther && (shown.data.status === null ? <Value of={null} /> : <State kind={kindOf(shown.data.status)}>{shown.data.status}</State>)}
        {heldNow && <span class="flag bad">held</span>}
        <div class="tools">
          <Copy text={id} label="Copy id" />
          <CopyCurl path={asOf ? `${path}?asOfSequence=${asOf}` : path} what="the order" />
          <a href={to(['orders'])}>All orders</a>
        </div>
      </div>
      {heldNow && (
        <div class="note">
          <p><strong>{missing(heldNow)}</strong> Held since <Time at={heldNow.since} />.{' '}
            {may('operate') ? <a href={to(['operations', 'held', id])}>Repair it</a> : <span class="muted">An operator can repair it.</span>}</p>
        </div>
      )}
      {now.data && <AsOf last={now.data.lastEventSequence} asOf={asOf} events={events.data?.items} />}
      {now.error?.code === 'order_held' && !asOf ? <p class="empty">Nothing of this order is shown until its first event is there.</p> : (
        <Shown of={shown} what="the order">{(order) => <Facts order={order} answer={shown.answer} />}</Shown>
      )}
      {unknown ? null : <div class="head section"><h2>History</h2><div class="tools"><CopyCurl path={`${path}/events`} what="the history" /></div></div>}
      {unknown ? null : events.error?.code === 'history_off' ? <p class="empty">{events.error.detail}</p>
        : events.error && !events.data ? <Failure problem={events.error} again={events.again} />
          : <History events={events.answer ? faithful<{ items: OrderEvent[] }>(events.answer.text).items : []} held={waits} asOf={asOf} more={linked(events.answer?.headers, 'next') !== null} />}
    </section>
  );
}

/** A slider over the events of the order; the address says where it stands. */
function AsOf({ last, asOf, events }: { last: number; asOf: string | null; events: OrderEvent[] | undefined }) {
  const first = events?.[0]?.sequence ?? 1;
  const at = asOf ? Number(asOf) : last;
  const event = events?.find((one) => one.sequence === at);
  const move = (to: number) => change({ asOf: to >= last ? null : String(to) });
  return (
    <div class={asOf ? 'note' : ''}>
      <div class="slider">
        <label for="asof">As it was after event</label>
        <input id="asof" type="range" min={first} max={last} value={at} disabled={last <= first} onInput={(input) => move(Number(input.currentTarget.value))}
          aria-valuetext={`event ${at} of ${last}${event ? `, ${event.type}` : ''}`} />
        <span class="num">{at} of {last}</span>
        <span>{event && <>{event.type}, <Time at={event.occurredAt} /></>}</span>
        {asOf && <button type="button" onClick={() => change({ asOf: null })}>Back to now</button>}
      </div>
    </div>
  );
}

/** Where they came from, at best. */
const RATES: { [basis: string]: string } = { event: 'of the events', config: 'of the settings', none: 'none known' };

function Facts({ order, answer }: { order: Whole; answer: Answer<Whole> | undefined }) {
  const [raw, setRaw] = useState(false);
  return (
    <>
      <dl class="facts">
        <div><dt>Gross</dt><dd class="big">{order.totalGross} <span class="unit">{order.currency}</span></dd></div>
        <div><dt>Net</dt><dd class="big">{order.totalNet}</dd></div>
        <div><dt>Tax rates</dt><dd>{RATES[order.taxBasis] ?? order.taxBasis}</dd></div>
        <div><dt>Customer</dt><dd>{!order.customerId ? <Value of={order.customerId} /> : <a href={to(['orders'], {}, { customer: order.customerId })}>{order.customerId}</a>}</dd></div>
        <div><dt>Last event</dt><dd>{order.lastEventSequence} <span class="muted mono">{order.lastEventId}</span></dd></div>
        <div><dt>Updated</dt><dd><Time at={order.updatedAt} /></dd></div>
        {order.anomalies.length > 0 && <div><dt>Anomalies</dt><dd>{order.anomalies.map((anomaly) => <span class="flag" key={anomaly}>{anomaly.replaceAll('_', ' ')}</span>)}</dd></div>}
      </dl>
      <h2>Lines</h2>
      {order.items.length === 0 ? <p class="empty">The order has no line.</p> : (
        <Table label="Lines of the order">
          <thead><tr><th scope="col" class="num">Line</th><th scope="col">SKU</th><th scope="col">Item</th><th scope="col" class="num">Quantity</th><th scope="col" class="num">Price</th><th scope="col" class="num">Tax rate</th><th scope="col" class="num">Net</th><th scope="col" class="num">Gross</th></tr></thead>
          <tbody>
            {order.items.map((item) => (
              <tr key={item.lineNo}>
                <td class="num">{item.lineNo}</td><td class="mono">{item.sku}</td><td class="mono">{item.itemId}</td><td class="num">{item.qty}</td><td class="num">{item.price}</td>
                <td class="num"><Value of={item.taxRate} /></td><td class="num">{item.netLineTotal}</td><td class="num">{item.grossLineTotal}</td>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
      <p class="tools"><button type="button" class="quiet" aria-expanded={raw} onClick={() => setRaw(!raw)}>{raw ? 'Hide' : 'Show'} the answer as JSON</button></p>
      {raw && answer && <Record text={answer.text} label="the order" />}
    </>
  );
}

interface Told {
  sequence: number | null;
  key: string;
  what: string;
  type: string;
  at: string | null;
  place: string;
  kind: 'good' | 'wait' | 'bad' | 'idle';
  letter?: number;
  text?: string;
}

/** Applied, parked, refused and missing, each at its number. */
function tellAll(events: OrderEvent[], held: HeldDetail | undefined): Told[] {
  const all: Told[] = events.map((event) => ({
    sequence: event.sequence, key: `e${event.sequence}/${event.eventId}`, what: event.effect, type: event.type, at: event.occurredAt,
    place: event.offset < 0 ? 'by a decision' : `${event.partition}/${event.offset}`, kind: event.effect === 'applied' ? 'good' : 'idle',
    text: event.payload === null || event.payload === undefined ? undefined : JSON.stringify(event.payload),
  }));
  for (const event of held?.parked ?? []) {
    const text = event.payload.json === undefined ? event.payload.text : JSON.stringify(event.payload.json);
    all.push({ sequence: event.sequence, key: `p${event.sequence}/${event.offset}`, what: 'parked', type: event.type ?? 'unknown', at: event.occurredAt, place: `${event.partition}/${event.offset}`, kind: 'wait', text });
  }
  const refusedAt = new Set<number | null>();
  for (const letter of held?.deadLetters ?? []) {
    refusedAt.add(letter.sequence);
    all.push({ sequence: letter.sequence, key: `d${letter.id}`, what: `refused: ${letter.error}`, type: letter.reason, at: letter.createdAt, place: `${letter.partition}/${letter.offset}`, kind: 'bad', letter: letter.id });
  }
  if (held) {
    const [from, upTo] = [held.missingFrom, Math.min(held.missingTo ?? held.missingFrom, held.missingFrom + 20)];
    for (let sequence = from; sequence <= upTo; sequence += 1) {
      if (!refusedAt.has(sequence)) all.push({ sequence, key: `m${sequence}`, what: 'missing', type: '', at: held.since, place: '', kind: 'wait' });
    }
  }
  return all.sort((a, b) => (a.sequence ?? 0) - (b.sequence ?? 0));
}

function History({ events, held, asOf, more }: { events: OrderEvent[]; held: HeldDetail | undefined; asOf: string | null; more: boolean }) {
  const [open, setOpen] = useState<string | null>(null);
  const all = tellAll(events, held);
  if (all.length === 0) return <p class="empty">No event of this order has been applied.</p>;
  return (
    <>
      <Table label="Events of the order">
        <thead><tr><th scope="col" class="num">Number</th><th scope="col">Event</th><th scope="col">What became of it</th><th scope="col">Happened</th><th scope="col" class="num">Partition/offset</th><th scope="col">Payload</th></tr></thead>
        <tbody>
          {all.map((one) => [
            <tr key={one.key} class={`${one.what === 'missing' ? 'absent' : ''} ${asOf && (one.sequence ?? 0) > Number(asOf) ? 'gone' : ''} ${asOf === String(one.sequence) ? 'selected' : ''}`}>
              <td class="num">{one.sequence ?? '–'}</td>
              <td>{one.type}</td>
              <td class="wide">{one.what === 'missing' ? 'missing, the order waits for it' : <State kind={one.kind}>{one.what}</State>} {one.letter && <a href={to(['operations', 'letters', String(one.letter)])}>dead letter {one.letter}</a>}</td>
              <td>{one.what === 'missing' ? <>since <Time at={one.at} /></> : <Time at={one.at} />}</td>
              <td class="num">{one.place}</td>
              <td>{one.text && <button type="button" class="quiet" aria-expanded={open === one.key} onClick={() => setOpen(open === one.key ? null : one.key)}>{open === one.key ? 'Hide' : bytes(one.text.length)}<span class="unseen"> of event {one.sequence}</span></button>}</td>
            </tr>,
            open === one.key && one.text ? <tr key={`${one.key}/payload`}><td colSpan={6}><Record text={pretty(one.text)} label={`payload of event ${one.sequence}`} /></td></tr> : null,
          ])}
        </tbody>
      </Table>
      {more && <p class="small muted">The first {count(events.length)} events are shown; <code>GET /orders/…/events</code> leads on by its Link header.</p>}
    </>
  );
}
