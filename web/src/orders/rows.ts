// The rows of the list while orders change: a row changes where it is, an order that is not there waits, or comes to the top. No clock,
// and nothing is asked: when it is drawn and merged, the list decides.
import { MOST_HELD, type Held, type HeldKey, type Order } from './model';

export const PAGE_SIZE = 50;
/** Orders that are kept while somebody points at the list; of more only that there are more. */
export const MOST_WAITING = 1000;

/** What has to be so for an order to be in the list. */
export interface Filter {
  /** None: any. */
  statuses: string[];
  from: string | null;
  to: string | null;
}

export function fits({ statuses, from, to }: Filter, order: Order): boolean {
  const at = Date.parse(order.updatedAt);
  return (statuses.length === 0 || (order.status !== null && statuses.includes(order.status))) && !(from && at < Date.parse(from)) && !(to && at >= Date.parse(to));
}

export interface Rows {
  rows: Map<string, Order>;
  order: string[];
  /** How often a row has changed, and which do not fit any more. */
  changed: Map<string, number>;
  gone: Set<string>;
  /** Orders that have come and are not shown. */
  waiting: Map<string, Order>;
}

export function noRows(): Rows {
  return { rows: new Map(), order: [], changed: new Map(), gone: new Set(), waiting: new Map() };
}

/** The list as it was answered. What came while it was on its way is newer than the list where its number is. */
export function begin(now: Rows, first: Order[]): void {
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
}

/** An order as it is now. One order is one row, whatever was told how often. */
export function take(now: Rows, filter: Filter, order: Order): void {
  const id = order.orderId;
  const known = now.rows.get(id);
  if (known) {
    if (order.lastEventSequence < known.lastEventSequence) return;
    now.rows.set(id, order);
    now.changed.set(id, (now.changed.get(id) ?? 0) + 1);
    if (fits(filter, order)) now.gone.delete(id);
    else now.gone.add(id);
    return;
  }
  now.waiting.delete(id);
  if (!fits(filter, order)) return;
  now.waiting.set(id, order);
  const [oldest] = now.waiting.keys();
  if (now.waiting.size > MOST_WAITING && oldest !== undefined) now.waiting.delete(oldest);
}

/** Puts what waits to the top; what does not fit any more, and what is beyond a page, is forgotten. */
export function merge(now: Rows): void {
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
  for (const id of now.changed.keys()) if (!now.rows.has(id)) now.changed.delete(id);
}

export type Waits = Pick<Held, 'reason' | 'missingFrom' | 'missingTo' | 'parkedCount'>;

/** Whether the list of what is held may lack some, so that orders have to be asked one by one. */
export function isCut(listed: HeldKey[] | undefined): boolean {
  return listed !== undefined && listed.length >= MOST_HELD;
}

/** Which orders wait: as they are listed, and where that list is cut, or there is none, as they were asked one by one. */
export function heldOf(listed: HeldKey[] | undefined, seen: ReadonlyMap<string, Waits>): ReadonlyMap<string, Waits> {
  if (!listed) return seen;
  return new Map<string, Waits>([...(isCut(listed) ? seen : []), ...listed.map((key) => [key.key, key] as const)]);
}
