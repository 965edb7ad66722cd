// Orders as the API tells them.

export interface Order {
  orderId: string;
  customerId: string | null;
  status: string | null;
  currency: string | null;
  totalNet: string;
  totalGross: string;
  itemCount: number;
  lastEventSequence: number;
  lastEventId: string;
  updatedAt: string;
  taxBasis: string;
  anomalies: string[];
}

export interface Changed extends Order {
  changedBy: { eventId: string; eventType: string | null; sequence: number; effect: string | null } | null;
}

export interface OrderPage {
  items: Order[];
  page: number | null;
  pageSize: number;
  total: number;
  totalIsEstimate: boolean;
}

export interface Held {
  reason: string;
  missingFrom: number;
  missingTo: number | null;
  parkedCount: number;
  parkedBytes: number;
  since: string;
  deadLetterId?: number;
  href: string;
}

export interface Item {
  lineNo: number;
  itemId: string;
  sku: string;
  qty: string;
  price: string;
  taxRate: string | null;
  netLineTotal: string;
  grossLineTotal: string;
}

export interface Whole extends Order {
  items: Item[];
  held: Held | null;
}

export interface OrderEvent {
  sequence: number;
  eventId: string;
  type: string;
  occurredAt: string;
  partition: number;
  offset: number;
  effect: string;
  payload: unknown;
}

export interface HeldKey {
  view: string;
  key: string;
  reason: string;
  missingFrom: number;
  missingTo: number | null;
  refusedCount: number;
  parkedCount: number;
  parkedBytes: number;
  since: string;
  provenAt: string | null;
  decided: boolean;
  href: string;
}

/** So many held orders are listed at most, those that wait longest. */
export const MOST_HELD = 200;

/** Statuses of the event contract, in the order of an order's life. */
export const STATUSES = ['Created', 'Paid', 'Packed', 'Shipped', 'Delivered', 'Cancelled', 'Returned', 'Refunded'];

export function kindOf(status: string | null): 'good' | 'on' | 'idle' {
  if (status === 'Delivered') return 'good';
  if (status === 'Cancelled' || status === 'Returned' || status === 'Refunded') return 'idle';
  return status === null ? 'idle' : 'on';
}

/** What is missing, in a sentence. */
export function missing(held: { reason: string; missingFrom: number; missingTo: number | null; parkedCount: number }): string {
  const { missingFrom: from, missingTo: upTo } = held;
  const what = upTo === null || upTo === from ? `event ${from}` : `events ${from} to ${upTo}`;
  const parked = held.parkedCount === 0 ? 'no later event has come yet' : held.parkedCount === 1 ? '1 later event is parked until then' : `${held.parkedCount} later events are parked until then`;
  const why: Record<string, string> = {
    gap: `${cap(what)} ${upTo !== null && upTo !== from ? 'have' : 'has'} not arrived`,
    poison: `${cap(what)} was refused, because it cannot be read`,
    event_id_reused: `${cap(what)} was refused, because another event had its id before`,
    conflict: `${cap(what)} was refused, because it contradicts what was applied`,
  };
  return `${why[held.reason] ?? `${cap(what)} is missing (${held.reason})`}; ${parked}.`;
}

function cap(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
