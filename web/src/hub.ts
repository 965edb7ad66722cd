// The hub at /hub/stream by the stock SignalR client: one connection for all that a tab watches, opened when it is first needed.
// Cut off, it comes back for ever; what was streamed has ended then, and whoever watched is told.
import type { HubConnection, ISubscription } from '@microsoft/signalr';
import { root } from './api';
import { lines, type Line } from './live';

const LONGEST_WAIT = 30_000;
const key = Symbol('hub');
let line: Line = { state: 'connecting', since: 0, again: 0 };
let opening: Promise<HubConnection> | undefined;
/** Settled once a connection that was cut off is there again, or is given up. */
let restored = Promise.resolve();
let settle: () => void = () => undefined;
let users = 0;
let closing = 0;

function tell(change: Partial<Line> | null): void {
  if (change) line = { ...line, ...change };
  const next = new Map(lines.value);
  if (change) next.set(key, line);
  else next.delete(key);
  lines.value = next;
}

async function connect(): Promise<HubConnection> {
  tell({ state: 'connecting', since: 0 });
  const { HubConnectionBuilder, LogLevel } = await import('@microsoft/signalr');
  const connection = new HubConnectionBuilder()
    .withUrl(new URL('hub/stream', root).href)
    .configureLogging(LogLevel.None) // its words would hold the address with what lets one in
    .withAutomaticReconnect({
      // Without an end: it would give up after 42 s.
      nextRetryDelayInMilliseconds({ previousRetryCount }) {
        const wait = Math.min(LONGEST_WAIT, 1000 * 2 ** Math.min(previousRetryCount, 5)) * (0.75 + Math.random() / 2);
        tell({ state: 'waiting', again: Date.now() + wait });
        return wait;
      },
    })
    .build();
  connection.onreconnecting(() => {
    restored = new Promise((resolve) => (settle = resolve));
  });
  connection.onreconnected(() => {
    settle();
    tell({ state: 'connected', since: Date.now() });
  });
  connection.onclose(() => {
    opening = undefined;
    settle();
    tell(null);
  });
  try {
    await connection.start();
  } catch (error) {
    tell(null);
    throw error;
  }
  tell({ state: 'connected', since: Date.now() });
  return connection;
}

async function hub(): Promise<HubConnection> {
  window.clearTimeout(closing);
  opening ??= connect().catch((error: unknown) => {
    opening = undefined;
    throw error;
  });
  const connection = await opening;
  await restored;
  return connection;
}

/** Keeps the connection open until the function that it gives is called; the last one closes it. */
export function hold(): () => void {
  users += 1;
  window.clearTimeout(closing);
  return () => {
    users -= 1;
    if (users > 0) return;
    closing = window.setTimeout(() => void opening?.then((connection) => connection.stop(), () => undefined), 500);
  };
}

export async function invoke<T>(method: string, ...given: unknown[]): Promise<T> {
  return (await hub()).invoke<T>(method, ...given);
}

export interface Watched {
  /** It was asked for: before that there may be no connection. */
  open?: () => void;
  next: (text: string) => void;
  /** It is over: `why` is a sentence, or undefined if all was told. */
  end: (why: string | undefined, lost: boolean) => void;
}

/** Streams; gives what stops it. After that nothing is told any more: whoever stops knows. */
export function stream(method: string, given: unknown[], watched: Watched): () => void {
  let subscription: ISubscription<string> | undefined;
  let stopped = false;
  const release = hold();
  const over = (tellIt: () => void) => {
    if (stopped) return;
    stopped = true;
    release();
    tellIt();
  };
  void hub().then(
    (connection) => {
      if (stopped) return;
      watched.open?.();
      subscription = connection.stream<string>(method, ...given).subscribe({
        next: (text) => stopped || watched.next(text),
        complete: () => over(() => watched.end(undefined, false)),
        error: (error: unknown) => over(() => {
          const why = wordsOf(error);
          watched.end(why, isLost(error));
        }),
      });
    },
    (error: unknown) => over(() => watched.end(wordsOf(error), true)),
  );
  return () => {
    if (stopped) return;
    stopped = true;
    subscription?.dispose();
    release();
  };
}

/** The client says of a cut that a socket has closed, and of a refusal what the server said behind words of its own. */
function isLost(error: unknown): boolean {
  return /WebSocket closed|Server timeout|connection being closed|underlying connection|The server stops|Invocation canceled|Cannot send data/i.test(String(error));
}

function wordsOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/^An unexpected error occurred invoking '[^']*' on the server\.\s*/, '').replace(/^(HubException|Error): /, '');
}
