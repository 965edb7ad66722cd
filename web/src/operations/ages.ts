// Times that people pick, for lists whose API takes ages: "refused at least 40 s ago".
import { useEffect, useState } from 'preact/hooks';
import { place } from '../router';

/** So long an age is counted from the same moment. */
const ANCHORED = 60_000;
/** Seconds that a call may take to the server, whose clock counts. */
const ON_THE_WAY = 1;

export interface Ages {
  newerThan?: string;
  olderThan?: string;
}

function agesOf(from: string | null, to: string | null, age: (instant: string, isOldest: boolean) => number): Ages {
  const whole = (seconds: number) => String(Math.max(0, seconds));
  return { ...(from ? { newerThan: whole(age(from, true)) } : {}), ...(to ? { olderThan: whole(age(to, false)) } : {}) };
}

/** The ages of `from` and `to` in the address, and the moment `at` they are counted from: it goes into the address with a cursor,
 * which is for the same filters only. */
export function useAges(): Ages & { at: string | null } {
  const { query } = place.value;
  const [from, to, fixed] = [query.get('from'), query.get('to'), query.get('at')];
  const [anchor, setAnchor] = useState(Date.now());
  const asks = (from ?? to) !== null && fixed === null;
  useEffect(() => {
    if (!asks) return undefined;
    setAnchor(Date.now());
    const timer = window.setInterval(() => setAnchor(Date.now()), ANCHORED);
    return () => window.clearInterval(timer);
  }, [asks, from, to]);
  if (from === null && to === null) return { at: null };
  const moment = Number(fixed) || anchor;
  return { ...agesOf(from, to, (instant) => Math.round((moment - Date.parse(instant)) / 1000)), at: String(moment) };
}

/** The same as of now, for what is decided: rounded and with time for the way, so that nothing outside of `from` and `to` is among it. */
export function agesNow(): Ages {
  const { query } = place.peek();
  return agesOf(query.get('from'), query.get('to'), (instant, isOldest) => {
    const seconds = (Date.now() - Date.parse(instant)) / 1000;
    return isOldest ? Math.floor(seconds) : Math.ceil(seconds) + ON_THE_WAY;
  });
}
