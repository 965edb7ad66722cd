// Streams of server-sent events, read by `fetch`: unlike EventSource this sees signs of life, so that a line that is cut without a
// word is noticed, and why a stream is refused. Cut off, it comes back with the last id and misses nothing.
import { computed, signal } from '@preact/signals';
import { halted, polls, Problem, problemOf, root, silentSince } from './api';
import { clock } from './time';

/** The server breaks its silence every 15 s. */
const SILENCE = 32_000;
const LONGEST_WAIT = 30_000;

export interface Line {
  state: 'connecting' | 'connected' | 'waiting' | 'refused' | 'asleep';
  /** When it was connected last. */
  since: number;
  /** When it tries again. */
  again: number;
  problem?: Problem;
  now?: () => void;
}

/** Every line that the page in view holds. */
export const lines = signal<ReadonlyMap<symbol, Line>>(new Map());

/** Ticks while a line is down, so that the seconds until the next attempt are told. */
const tick = signal(0);
setInterval(() => [...lines.value.values()].some((line) => line.state === 'waiting') && (tick.value += 1), 1000);

export interface Connection {
  word: string;
  state: 'none' | 'good' | 'wait' | 'bad';
  now?: () => void;
}

/** The worst of them, in words. */
export const connection = computed<Connection>(() => {
  const all = [...lines.value.values()];
  if (halted.value) return { word: 'the session has ended', state: 'bad' };
  const down = all.find((line) => line.state === 'refused') ?? all.find((line) => line.state === 'waiting');
  if (down) {
    void tick.value;
    const lost = down.since ? `lost since ${clock(down.since)}` : 'not connected';
    if (down.state === 'refused') return { word: `${lost}: ${down.problem?.detail ?? 'refused'}`, state: 'bad', now: down.now };
    const seconds = Math.max(0, Math.ceil((down.again - Date.now()) / 1000));
    return { word: `${lost}, trying again in ${seconds} s`, state: 'wait', now: down.now };
  }
  if (silentSince.value) return { word: `no answer since ${clock(silentSince.value)}`, state: 'bad' };
  if (all.some((line) => line.state === 'connecting')) return { word: 'connecting', state: 'wait' };
  if (all.some((line) => line.state === 'connected') || polls.value > 0) return { word: 'connected', state: 'good' };
  return { word: '', state: 'none' };
});

export interface Event {
  name: string;
  id: string;
  data: string;
}

export interface Follow {
  /** The path of the stream, with its filters and without `after`. */
  path: string;
  event: (event: Event) => void;
  /** It is connected: `resumed` says that nothing was missed. */
  open?: (resumed: boolean) => void;
  /** It was cut off, or let go while nobody looks. */
  lost?: () => void;
}

/** Follows until the function that it gives is called. While the tab is hidden nothing is followed. */
export function follow({ path, event, open, lost }: Follow): () => void {
  const key = Symbol(path);
  let line: Line = { state: 'connecting', since: 0, again: 0 };
  let lastId = '';
  let failures = 0;
  let retry = 1000;
  let timer = 0;
  let abort = new AbortController();
  let ended = false;

  const tell = (change: Partial<Line>) => {
    line = { ...line, ...change };
    const next = new Map(lines.value);
    if (ended) next.delete(key);
    else next.set(key, line);
    lines.value = next;
  };

  const begin = async () => {
    window.clearTimeout(timer);
    if (line.state === 'connected') lost?.();
    abort.abort();
    const mine = new AbortController();
    abort = mine;
    tell({ state: 'connecting', problem: undefined });
    const url = new URL(path.replace(/^\//, ''), root);
    const resumed = lastId !== '';
    if (resumed) url.searchParams.set('after', lastId);
    try {
      const response = await fetch(url, { headers: { accept: 'text/event-stream' }, signal: mine.signal, cache: 'no-store' });
      if (!response.ok || !response.body) throw problemOf(response, await response.text());
      failures = 0;
      tell({ state: 'connected', since: Date.now(), problem: undefined });
      open?.(resumed);
      await read(response.body.getReader(), mine);
      throw new Error('ended');
    } catch (error) {
      if (ended || abort !== mine) return;
      const problem = error instanceof Problem ? error : undefined;
      // What lies behind the id cannot be told any more: begin anew, and whoever follows reads the whole again.
      if (problem && [400, 410].includes(problem.status) && lastId) lastId = '';
      else if (problem && problem.status < 500 && problem.status !== 429) return tell({ state: 'refused', problem, now: begin });
      if (line.state === 'connected') lost?.();
      const wait = Math.min(LONGEST_WAIT, retry * 2 ** Math.min(failures, 5)) * (0.75 + Math.random() / 2);
      failures += 1;
      tell({ state: 'waiting', again: Date.now() + wait, problem, now: begin });
      timer = window.setTimeout(begin, wait);
    }
  };

  const read = async (reader: ReadableStreamDefaultReader<Uint8Array>, mine: AbortController) => {
    const decoder = new TextDecoder();
    let rest = '';
    let block = { name: 'message', id: '', data: [] as string[] };
    for (;;) {
      const watch = window.setTimeout(() => mine.abort(), SILENCE);
      const { done, value } = await reader.read().finally(() => window.clearTimeout(watch));
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const whole = rest.split('\n');
      rest = whole.pop() ?? '';
      for (const text of whole.map((text) => text.replace(/\r$/, ''))) {
        const colon = text.indexOf(':');
        const [field, content] = colon < 0 ? [text, ''] : [text.slice(0, colon), text.slice(colon + 1).replace(/^ /, '')];
        if (text === '') {
          if (block.id) lastId = block.id;
          if (block.data.length > 0) event({ name: block.name, id: block.id, data: block.data.join('\n') });
          block = { name: 'message', id: '', data: [] };
        } else if (field === 'event') block.name = content;
        else if (field === 'id') block.id = content;
        else if (field === 'data') block.data.push(content);
        else if (field === 'retry') retry = Number(content) || retry;
      }
    }
  };

  const seen = () => {
    if (document.hidden) {
      window.clearTimeout(timer);
      if (line.state === 'connected') lost?.();
      abort.abort();
      abort = new AbortController();
      tell({ state: 'asleep' });
    } else if (line.state === 'asleep') void begin();
  };
  const online = () => line.state !== 'asleep' && void begin();
  document.addEventListener('visibilitychange', seen);
  window.addEventListener('online', online);
  if (document.hidden) tell({ state: 'asleep' });
  else void begin();
  return () => {
    ended = true;
    document.removeEventListener('visibilitychange', seen);
    window.removeEventListener('online', online);
    window.clearTimeout(timer);
    abort.abort();
    tell({});
  };
}
