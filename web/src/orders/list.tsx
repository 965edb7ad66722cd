// The list of orders, live: rows change where they are, and new ones come to the top unless somebody points at a row.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ask, useAsk } from '../api';
import { connection, follow } from '../live';
import { parse } from '../json';
import { change, go, narrow, place, to } from '../router';
import { may } from '../session';
import { clock, Time } from '../time';
import { Between, CopyCurl, count, Download, Empty, Pager, Shown, State, Table, Toolbar, Typed, Value } from '../widgets';
import { kindOf, missing, MOST_HELD, STATUSES, type Changed, type Held, type HeldKey, type Order, type OrderPage } from './model';
import { begin, heldOf, isCut, merge, MOST_WAITING, noRows, PAGE_SIZE, take, type Filter, type Rows, type Waits } from './rows';

const SORTS: [string, string, string][] = [['orderId', 'Order', ''], ['totalGross', 'Gross', 'num'], ['totalNet', 'Net', 'num'], ['updatedAt', 'Updated', '']];

export function List() {
  const { query, hash } = place.value;
  const customer = hash.get('customer') ?? '';
  const asked = useMemo(() => pathOf(query, customer), [query.toString(), customer]);
  const list = useAsk<OrderPage>(asked.path);
  // Orders come without the list being asked for again.
  const counted = useAsk<OrderPage>(asked.count, { every: COUNTED_EVERY });
  const total = counted.isOther || counted.at < list.at ? list.data : counted.data;
  const sort = query.get('sort') ?? '-updatedAt';
  const atTop = sort === '-updatedAt' && !query.has('cursor') && !query.has('to');
  const live = useLive(list.data?.items, asked, atTop, list.again);
  const held = useAsk<{ items: HeldKey[] }>(may('operate') ? `/ops/held?pageSize=${MOST_HELD}` : null, { every: 5000 });
  const seen = useHeldOf(may('operate') && !isCut(held.data?.items) ? NONE : live.rows);
  const waits = heldOf(held.data?.items, seen);
  return (
    <section>
      <div class="head">
        <h1>Orders</h1>
        {total && <span class="muted">{total.totalIsEstimate ? 'about ' : ''}{count(total.total)} {total.total === 1 ? 'order' : 'orders'}{asked.filtered ? ' match' : ''}</span>}
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
                {live.rows.map((order) => <Row key={order.orderId} order={order} held={waits.get(order.orderId)} changed={live.changed.get(order.orderId)} gone={live.gone.has(order.orderId)} />)}
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
/** Milliseconds between counts of all that match. */
const COUNTED_EVERY = 15_000;
/** How long it is believed that an order waits or does not, and how many are asked about at once. */
const BELIEVED = 30_000;
const AT_ONCE = 6;

/** Readers may not list what is held, nor has the list all of a great many, but each order says whether it is: those in view are asked,
 * a few at a time. */
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
        <strong>{held.length === 1 ? '1 order is held' : `${held.length}${isCut(held) ? ' or more' : ''} orders are held`}</strong>:{' '}
        {held.slice(0, 5).map((key, index) => <span key={key.key}>{index > 0 && ', '}<a class="mono" href={to(['orders', key.key])}>{key.key}</a></span>)}
        {held.length > 5 && <> and {held.length - 5} more</>}.{' '}
        <a href={to(['operations', 'held'])}>See what they wait for</a>
      </p>
    </div>
  );
}

interface AskedList {
  path: string;
  /** The same for the number alone. */
  count: string;
  /** The stream of all that may come into it; what leaves the filter has to be seen, too. */
  stream: string;
  filter: Filter;
  filtered: boolean;
}

function pathOf(query: URLSearchParams, customer: string): AskedList {
  const [all, stream] = [new URLSearchParams(), new URLSearchParams()];
  const statuses = query.getAll('status');
  for (const status of statuses) all.append('status', status);
  if (customer) for (const to of [all, stream]) to.set('customerId', customer);
  const filter = { statuses, from: query.get('from'), to: query.get('to') };
  for (const name of ['from', 'to'] as const) if (filter[name]) all.set(name, filter[name]);
  const counted = new URLSearchParams(all);
  counted.set('pageSize', '1');
  for (const name of ['sort', 'cursor']) {
    const value = query.get(name);
    if (value) all.set(name, value);
  }
  const filtered = statuses.length > 0 || customer !== '' || query.has('from') || query.has('to');
  all.set('pageSize', String(PAGE_SIZE));
  const rest = stream.toString();
  return { path: `/orders?${all}`, count: `/orders?${counted}`, stream: `/orders/changes${rest && `?${rest}`}`, filter, filtered };
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

interface LiveRows extends Pick<Rows, 'changed' | 'gone'> {
  rows: Order[];
  waiting: number;
  paused: boolean;
  word: string;
  show: () => void;
  pause: () => void;
  point: (at: boolean) => void;
}

/** The rows of `first`, kept up to date. */
function useLive(first: Order[] | undefined, asked: AskedList, atTop: boolean, again: () => void): LiveRows {
  const [, draw] = useState(0);
  const [paused, setPaused] = useState(false);
  const store = useRef({ ...noRows(), pointed: false, dirty: false, at: 0 });
  const now = store.current;

  useEffect(() => {
    if (!first) return;
    begin(now, first);
    if (!atTop) now.waiting.clear();
    now.at = Date.now();
    draw((turn) => turn + 1);
  }, [first]);

  useEffect(() => {
    if (paused) return undefined;
    now.waiting.clear();
    const stop = follow({
      path: asked.stream,
      open: (resumed) => !resumed && again(),
      event: ({ name, data }) => {
        if (name !== 'order') return;
        take(now, asked.filter, parse<Changed>(data));
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
  }, [asked.stream, JSON.stringify(asked.filter), atTop, paused]);

  const cut = ['bad', 'wait'].includes(connection.value.state);
  const rows = now.order.map((id) => now.rows.get(id)).filter((order) => order !== undefined);
  const show = () => {
    if (atTop) {
      merge(now);
      draw((turn) => turn + 1);
    } else {
      // Where only the times keep the list from its top, its address is the same.
      narrow({ sort: null });
      again();
    }
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
