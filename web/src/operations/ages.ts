// Times that people pick, for lists whose API takes ages: "refused at least 40 s ago".
import { useEffect, useState } from 'preact/hooks';
import { place } from '../router';

/** So long an age is counted from the same moment. */
const ANCHORED = 60_000;

export interface Ages {
  newerThan?: string;
  olderThan?: string;
  /** The moment they are counted from: goes into the address with a cursor, which is for the same filters only. */
  at: string | null;
}

/** The ages of `from` and `to` in the address. */
export function useAges(): Ages {
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
  const age = (instant: string) => String(Math.max(0, Math.round((moment - Date.parse(instant)) / 1000)));
  return { ...(from ? { newerThan: age(from) } : {}), ...(to ? { olderThan: age(to) } : {}), at: String(moment) };
}
