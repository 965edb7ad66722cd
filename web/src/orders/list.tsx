// The list of orders, live: rows change where they are, and new ones come to the top unless somebody points at a row.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ask, useAsk } from '../api';
import { connection, follow } from '../live';
import { parse } from '../json';
import { change, go, narrow, place, to } from '../router';
import { may } from '../session';
import { clock, Time } from '../time';
import { Between, CopyCurl, count, Download, Empty, Pager, Shown, State, Table, Toolbar, Typed, Value } from '../widgets';
import { kindOf, missing, STATUSES, type Changed, type Held, type HeldKey, type Order, type OrderPage } from './model';

const PAGE_SIZE = 50;
/** Orders that are kept while somebody points at the list; of more only that there are more. */
const MOST_WAITING = 1000;
const SORTS: [string, string, string][] = [['orderId', 'Order', ''], ['totalGross', 'Gross', 'num'], ['totalNet', 'Net', 'num'], ['updatedAt', 'Updated', '']];

export function List() {
  const { query, hash } = place.value;
  const customer = hash.get('customer') ?? '';
  const asked = useMemo(() => pathOf(query, customer), [query.toString(), customer]);
  const list = useAsk<OrderPage>(asked.path);
  const sort = query.get('sort') ?? '-updatedAt';
  const atTop = sort === '-updatedAt' && !query.has('cursor') && !query.has('to');
  const live = useLive(list.data?.items, asked, atTop, list.again);
  const held = useAsk<{ items: HeldKey[] }>(may('operate') ? '/ops/held?pageSize=200' : null, { every: 5000 });
  const seen = useHeldOf(may('operate') ? NONE : live.rows);
  const heldOf: ReadonlyMap<string, Waits> = held.data ? new Map(held.data.items.map((key) => [key.key, key])) : seen;
  return (
    <section>
      <div class="head">
        <h1>Orders</h1>
        {list.data && <span class="muted">{list.data.totalIsEstimate ? 'about ' : ''}{count(list.data.total)} {list.data.total === 1 ? 'order' : 'orders'}{asked.filtered ? ' match' : ''}</span>}
        <span class="muted">{live.word}</span>
        <div class="tools">
          {live.waiting > 0 && <button type="button" class="primary" onClick={live.show}>{live.waiting}{live.waiting === MOST_WAITING && ' or more'} new, show</button>}
          <GoTo />
          <Toolbar label="The list" main>
            <button type="button" aria-pressed={live.paused} onClick={live.pause}>{live.paused ? 'Resume' : 'Pause'}</button>
            <Download name="orders" rows={() => live.rows} />
            <CopyCurl path={asked.path} what="the list" />
          </Toolbar>
        </div>
      </div>
      <HeldBanner held={held.data?.items} />
      <Filters query={query} customer={customer} />
      <Shown of={list} what="orders">
        {() => live.rows.length === 0 ? (
          <Empty>{asked.filtered ? <>No order matches. <a href={to(['orders'])}>Show all</a></> : <>There is no order yet. Each shows here as soon as its first event is applied; <code>streamview seed</code> publishes some.</>}</Empty>
        ) : (
          <div onPointerEnter={() => live.point(true)} onPointerLeave={() => live.point(false)} onFocusCapture={() => live.point(true)} onBlurCapture={() => live.point(false)}>
            <Table label="Orders">
              <thead>
                <tr>
                  <Sorted name="orderId" sort={sort} />
                  <th scope="col">Customer</th>
                  <th scope="col">Status</th>
                  <Sorted name="totalGross" sort={sort} />
                  <Sorted name="totalNet" sort={sort} />
                  <th scope="col" class="num">Items</th>
                  <th scope="col" class="num">Event</th>
                  <Sorted name="updatedAt" sort={sort} />
                  <th scope="col">Flags</th>
                </tr>
              </thead>
              <tbody>
                {live.rows.map((order) => <Row key={order.orderId} order={order} held={heldOf.get(order.orderId)} changed={live.changed.get(order.orderId)} gone={live.gone.has(order.orderId)} />)}
              </tbody>
            </Table>
          </div>
        )}
      </Shown>
      <Pager asked={list} go={(cursor) => change({ cursor }, { replace: false })} />
    </section>
  );
}

const NONE: Order[] = [];
type Waits = Parameters<typeof missing>[0];
/** How long it is believed that an order waits or does not, and how many are asked about at once. */
const BELIEVED = 30_000;
const AT_ONCE = 6;

/** Readers may not list what is held, but each order says whether it is: those in view are asked, a few at a time. */
function useHeldOf(rows: Order[]): ReadonlyMap<string, Waits> {
  const [held, setHeld] = useState<ReadonlyMap<string, Waits>>(new Map());
  const store = useRef({ asked: new Map<string, number>(), rows });
  store.current.rows = rows;
  const asks = rows !== NONE;
  useEffect(() => {
    if (!asks) return undefined;
    const abort = new AbortController();
    const look = async () => {
      const { asked, rows } = store.current;
      const now = Date.now();
      const next = document.hidden ? [] : rows.map(({ orderId }) => orderId).filter((id) => now - (asked.get(id) ?? 0) > BELIEVED).slice(0, AT_ONCE);
      if (asked.size > 2000) asked.clear(); // orders that are long out of view
      for (const id of next) asked.set(id, now);
      const found = await Promise.all(next.map(async (id) => [id, (await ask<{ held: Held | null }>(`/orders/${encodeURIComponent(id)}`, {}, abort.signal)).data.held] as const)).catch(() => []);
      if (abort.signal.aborted || found.length === 0) return;
      setHeld((before) => {
        const after = new Map(before);
        for (const [id, waits] of found) {
          if (waits) after.set(id, waits);
          else after.delete(id);
        }
        return after;
      });
    };
    const timer = window.setInterval(look, 500);
    return () => {
      abort.abort();
      window.clearInterval(timer);
    };
  }, [asks]);
  return held;
}

function Row({ order, held, changed, gone }: { order: Order; held: Waits | undefined; changed: number | undefined; gone: boolean }) {
  return (
    <tr class={`${changed ? (changed % 2 === 0 ? 'changed' : 'changed again') : ''} ${gone ? 'gone' : ''}`} data-order={order.orderId}>
      <td><a class="mono" href={to(['orders', order.orderId])}>{order.orderId}</a></td>
      <td><Value of={order.customerId} /></td>
      <td>{order.status === null ? <Value of={null} /> : <State kind={kindOf(order.status)}>{order.status}</State>}</td>
      <td class="num">{order.totalGross} <span class="unit">{order.currency}</span></td>
      <td class="num">{order.totalNet}</td>
      <td class="num">{order.itemCount}</td>
      <td class="num">{order.lastEventSequence}</td>
      <td><Time at={order.updatedAt} /></td>
      <td>
        {held && <a class="flag bad" href={to(may('operate') ? ['operations', 'held', order.orderId] : ['orders', order.orderId])} title={missing(held)}>held</a>}
        {order.anomalies.map((anomaly) => <span class="flag" key={anomaly}>{anomaly.replaceAll('_', ' ')}</span>)}
      </td>
    </tr>
  );
}

function Sorted({ name, sort }: { name: string; sort: string }) {
  const [, label, kind] = SORTS.find(([known]) => known === name)!;
  const state = sort === name ? 'ascending' : sort === `-${name}` ? 'descending' : undefined;
  const next = state === 'descending' ? name : `-${name}`;
  return (
    <th scope="col" class={kind} aria-sort={state}>
      <button type="button" onClick={() => narrow({ sort: next === '-updatedAt' ? null : next })}>{label}</button>
    </th>
  );
}

/** Orders that wait are seen before any list is read; some of them have no row yet. */
function HeldBanner({ held }: { held: HeldKey[] | undefined }) {
  if (!held || held.length === 0) return null;
  return (
    <div class="note">
      <p>
        <strong>{held.length === 1 ? '1 order is held' : `${held.length}${held.length === 200 ? ' or more' : ''} orders are held`}</strong>:{' '}
        {held.slice(0, 5).map((key, index) => <span key={key.key}>{index > 0 && ', '}<a class="mono" href={to(['orders', key.key])}>{key.key}</a></span>)}
        {held.length > 5 && <> and {held.length - 5} more</>}.{' '}
        <a href={to(['operations', 'held'])}>See what they wait for</a>
      </p>
    </div>
  );
}

interface AskedList {
  path: string;
  /** The stream of all that may come into it; what leaves the filter has to be seen, too. */
  stream: string;
  statuses: string[];
  filtered: boolean;
}

function pathOf(query: URLSearchParams, customer: string): AskedList {
  const [all, stream] = [new URLSearchParams(), new URLSearchParams()];
  const statuses = query.getAll('status');
  for (const status of statuses) all.append('status', status);
  if (customer) for (const to of [all, stream]) to.set('customerId', customer);
  for (const name of ['from', 'to', 'sort', 'cursor']) {
    const value = query.get(name);
    if (value) all.set(name, value);
  }
  const filtered = statuses.length > 0 || customer !== '' || query.has('from') || query.has('to');
  all.set('pageSize', String(PAGE_SIZE));
  const rest = stream.toString();
  return { path: `/orders?${all}`, stream: `/orders/changes${rest && `?${rest}`}`, statuses, filtered };
}

function Filters({ query, customer }: { query: URLSearchParams; customer: string }) {
  const statuses = query.getAll('status');
  const counts = useCounts();
  const toggle = (status: string) => {
    const next = statuses.includes(status) ? statuses.filter((one) => one !== status) : [...statuses, status];
    narrow({ status: next });
  };
  return (
    <div class="filters">
      <fieldset class="toggles">
        <legend>Status</legend>
        {STATUSES.filter((status) => counts[status] !== '0' || statuses.includes(status)).map((status) => (
          <button type="button" key={status} aria-pressed={statuses.includes(status)} onClick={() => toggle(status)}>
            {status}{counts[status] !== undefined && <span class="num">{counts[status]}</span>}
          </button>
        ))}
      </fieldset>
      <Typed label="Customer" data-filter size={14} value={customer} placeholder="customer-7" set={(customer) => narrow({}, { customer })} />
      <Between label="Updated" from={query.get('from') ?? ''} to={query.get('to') ?? ''} />
    </div>
  );
}

function GoTo() {
  const find = (event: Event) => {
    event.preventDefault();
    const id = new FormData(event.currentTarget as HTMLFormElement).get('id');
    if (typeof id === 'string' && id.trim()) go(to(['orders', id.trim()]));
  };
  return (
    <form class="tools" onSubmit={find}>
      <input name="id" size={14} placeholder="Go to order" aria-label="Go to order" />
      <button type="submit">Go</button>
    </form>
  );
}

/** How many orders have each status: the list's own totals, asked for seldom. */
function useCounts(): Record<string, string> {
  const [counts, setCounts] = useState<Record<string, string>>({});
  useEffect(() => {
    const abort = new AbortController();
    const look = async () => {
      if (document.hidden) return;
      const found = await Promise.all(STATUSES.map(async (status) => {
        const { data } = await ask<OrderPage>(`/orders?status=${status}&pageSize=1`, {}, abort.signal);
        return [status, `${data.totalIsEstimate ? '~' : ''}${count(data.total)}`] as const;
      })).catch(() => null);
      if (found && !abort.signal.aborted) setCounts(Object.fromEntries(found));
    };
    void look();
    const timer = window.setInterval(look, 15_000);
    return () => {
      abort.abort();
      window.clearInterval(timer);
    };
  }, []);
  return counts;
}

interface LiveRows {
  rows: Order[];
  /** How often a row has changed, and which do not match the filter any more. */
  changed: Map<string, number>;
  gone: Set<string>;
  /** Orders that have come and are not shown. */
  waiting: number;
  paused: boolean;
  word: string;
  show: () => void;
  pause: () => void;
  point: (at: boolean) => void;
}

/** The rows of `first`, kept up to date. One order is one row, whatever was told how often. */
function useLive(first: Order[] | undefined, asked: AskedList, atTop: boolean, again: () => void): LiveRows {
  const [, draw] = useState(0);
  const [paused, setPaused] = useState(false);
  const store = useRef({ rows: new Map<string, Order>(), order: [] as string[], changed: new Map<string, number>(), gone: new Set<string>(), waiting: new Map<string, Order>(), pointed: false, dirty: false, at: 0 });
  const pausedNow = useRef(false);
  pausedNow.current = paused;
  const now = store.current;

  useEffect(() => {
    if (!first) return;
    // What came while the list was on its way is newer than the list where its number is.
    const before = now.rows;
    const later = (order: Order) => {
      const known = now.waiting.get(order.orderId) ?? before.get(order.orderId);
      return known && known.lastEventSequence > order.lastEventSequence ? known : order;
    };
    now.rows = new Map(first.map((order) => [order.orderId, later(order)]));
    now.order = first.map((order) => order.orderId);
    for (const id of now.order) now.waiting.delete(id);
    now.gone.clear();
    now.changed.clear();
    if (!atTop) now.waiting.clear();
    now.at = Date.now();
    draw((turn) => turn + 1);
  }, [first]);

  useEffect(() => {
    if (paused) return undefined;
    now.waiting.clear();
    const matches = (order: Order) => asked.statuses.length === 0 || (order.status !== null && asked.statuses.includes(order.status));
    const stop = follow({
      path: asked.stream,
      open: (resumed) => !resumed && again(),
      event: ({ name, data }) => {
        if (name !== 'order') return;
        const order = parse<Changed>(data);
        const known = now.rows.get(order.orderId);
        if (known) {
          if (order.lastEventSequence < known.lastEventSequence) return;
          now.rows.set(order.orderId, order);
          now.changed.set(order.orderId, (now.changed.get(order.orderId) ?? 0) + 1);
          if (matches(order)) now.gone.delete(order.orderId);
          else now.gone.add(order.orderId);
        } else if (matches(order)) {
          now.waiting.delete(order.orderId);
          now.waiting.set(order.orderId, order);
          const [oldest] = now.waiting.keys();
          if (now.waiting.size > MOST_WAITING && oldest !== undefined) now.waiting.delete(oldest);
        } else now.waiting.delete(order.orderId);
        now.dirty = true;
      },
    });
    // One redraw for whatever came.
    const timer = window.setInterval(() => {
      if (!now.dirty) return;
      now.dirty = false;
      now.at = Date.now();
      if (atTop && !now.pointed) merge(now);
      draw((turn) => turn + 1);
    }, 400);
    return () => {
      stop();
      window.clearInterval(timer);
    };
  }, [asked.stream, asked.statuses.join(), atTop, paused]);

  const cut = ['bad', 'wait'].includes(connection.value.state);
  const rows = now.order.map((id) => now.rows.get(id)).filter((order) => order !== undefined);
  const show = () => {
    if (atTop) {
      merge(now);
      draw((turn) => turn + 1);
    } else narrow({ sort: null });
  };
  return {
    rows, changed: now.changed, gone: now.gone, waiting: now.waiting.size, paused, show,
    word: paused ? `paused at ${clock(now.at)}` : cut && now.at ? `as of ${clock(now.at)}` : '',
    pause: () => {
      if (paused) again();
      setPaused(!paused);
    },
    point: (at) => (now.pointed = at),
  };
}

function merge(now: { rows: Map<string, Order>; order: string[]; gone: Set<string>; waiting: Map<string, Order>; changed: Map<string, number> }): void {
  for (const [id, order] of now.waiting) {
    now.rows.set(id, order);
    now.changed.set(id, (now.changed.get(id) ?? 0) + 1);
  }
  now.waiting.clear();
  for (const id of now.gone) now.rows.delete(id);
  now.gone.clear();
  const newest = [...now.rows.values()].sort((a, b) => Date.parse(b.updatedAt) - Date.parse(a.updatedAt) || (a.orderId < b.orderId ? 1 : -1));
  now.order = newest.slice(0, PAGE_SIZE).map((order) => order.orderId);
  now.rows = new Map(now.order.map((id) => [id, now.rows.get(id)!]));
}
