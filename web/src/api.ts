// The public API, and nothing else: one way to ask it, one shape of errors, and the same call as curl.
import { signal } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import { parse } from './json';

/** Where the API lies: beside the console. */
export const root = new URL('..', import.meta.url);

/** An answer with its text, in which every digit is as it was sent. */
export interface Answer<T> {
  data: T;
  text: string;
  status: number;
  headers: Headers;
}

/** What went wrong, as the API says it (RFC 9457), or why there was no answer at all. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly traceId: string | null,
    readonly body: Record<string, unknown>,
    readonly at = Date.now(),
  ) {
    super(detail);
  }

  /** What is said about one parameter or field. */
  of(name: string): string | undefined {
    const errors = this.body.errors as { parameter: string; detail: string }[] | undefined;
    return errors?.find((error) => error.parameter === name)?.detail;
  }
}

export interface Call {
  method?: string;
  body?: unknown;
  /** One for each intent: a call that is made twice has one effect. */
  key?: string;
  headers?: Record<string, string>;
}

/** Raised when the API says that nobody is logged in. */
export const refused = signal(0);

/** Raised when somebody has signed in again: what was refused meanwhile is asked for once more. */
export const returned = signal(0);
/** Whether nothing is asked again and again, since all of it would be refused. */
export const halted = signal(false);

/** Since when nothing answers; 0: it does, as far as anybody has asked. */
export const silentSince = signal(0);
/** How many questions are asked again and again. */
export const polls = signal(0);

export async function ask<T>(path: string, call: Call = {}, abort?: AbortSignal): Promise<Answer<T>> {
  const headers: Record<string, string> = { accept: 'application/json', ...call.headers };
  if (call.body !== undefined) headers['content-type'] = 'application/json';
  if (call.key) headers['idempotency-key'] = call.key;
  const body = call.body === undefined ? undefined : JSON.stringify(call.body);
  let response: Response;
  let text: string;
  try {
    response = await fetch(new URL(path.replace(/^\//, ''), root), { method: call.method ?? 'GET', headers, body, signal: abort });
    text = await response.text();
  } catch (error) {
    if (abort?.aborted) throw error;
    silentSince.value ||= Date.now();
    throw new Problem(0, 'no_answer', 'StreamView does not answer. It is stopped or restarting, or the network is cut.', null, {});
  }
  silentSince.value = 0;
  if (!response.ok) throw problemOf(response, text);
  return { data: read<T>(text), text, status: response.status, headers: response.headers };
}

function read<T>(text: string): T {
  try {
    return text ? parse<T>(text) : (undefined as T);
  } catch (error) {
    throw new Problem(0, 'unreadable_answer', `The answer is not one of StreamView's: ${String(error)}`, null, {});
  }
}

/** Whatever was thrown, as a problem. */
export function problemFrom(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem(0, 'unexpected', String(error), null, {});
}

export function problemOf(response: Response, text: string): Problem {
  let body: Record<string, unknown> = {};
  try {
    body = parse(text);
  } catch {
    // a proxy's page
  }
  const traceId = typeof body.traceId === 'string' ? body.traceId : response.headers.get('x-trace-id');
  const code = typeof body.code === 'string' ? body.code : `http_${response.status}`;
  const told = [body.detail, body.title].find((part) => typeof part === 'string') as string | undefined;
  if (response.status === 401) refused.value += 1;
  return new Problem(response.status, code, told ?? `The answer was ${response.status}, and not one of StreamView's.`, traceId, body);
}

/** A key for one intent. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** What a link of the header `Link` leads to, as a path of the API. */
export function linked(headers: Headers | undefined, rel: string): string | null {
  for (const [, target, parameters] of (headers?.get('link') ?? '').matchAll(/<([^>]*)>([^,]*)/g)) {
    if (parameters?.includes(`rel="${rel}"`)) return target ?? null;
  }
  return null;
}

/** The cursor of such a link. */
export function cursorOf(headers: Headers | undefined, rel: string): string | null {
  const link = linked(headers, rel);
  return link && new URL(link, root).searchParams.get('cursor');
}

/** The call for a shell. */
export function curl(path: string, call: Call = {}): string {
  const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
  const parts = ['curl', quote(new URL(path.replace(/^\//, ''), root).href)];
  if (call.method && call.method !== 'GET') parts.splice(1, 0, '-X', call.method);
  for (const [name, value] of Object.entries(call.headers ?? {})) parts.push('-H', quote(`${name}: ${value}`));
  if (call.body !== undefined) parts.push('-H', quote('content-type: application/json'), '-d', quote(JSON.stringify(call.body)));
  return parts.join(' ');
}

/** What a page knows of something that it asks for: the last good answer stays while a later one is awaited or has failed. */
export interface Asked<T> {
  answer: Answer<T> | undefined;
  data: T | undefined;
  /** When the answer came. */
  at: number;
  error: Problem | undefined;
  loading: boolean;
  /** Whether the answer is to what was asked before: what is asked now is not answered yet. */
  isOther: boolean;
  again: () => void;
}

interface Known<T> {
  /** What was asked: what is known of it is an answer, or why there is none, or both. */
  path: string | null;
  answer?: Answer<T>;
  at: number;
  error?: Problem;
  loading: boolean;
}

/** Asks for `path` (nothing, if it is null), again when it changes and, with `every`, so many milliseconds after each answer. */
export function useAsk<T>(path: string | null, { every = 0, headers }: { every?: number; headers?: Record<string, string> } = {}): Asked<T> {
  const [state, setState] = useState<Known<T>>({ path: null, at: 0, loading: path !== null });
  const [turn, setTurn] = useState(0);
  const back = returned.value;
  const timer = useRef(0);
  useEffect(() => {
    if (path === null) return undefined;
    const abort = new AbortController();
    setState((was) => ({ ...was, loading: true }));
    const later = () => {
      if (every > 0) timer.current = window.setTimeout(() => (document.hidden || halted.value ? later() : setTurn((turn) => turn + 1)), every);
    };
    ask<T>(path, headers ? { headers } : {}, abort.signal).then(
      (answer) => {
        setState({ path, answer, at: Date.now(), loading: false });
        later();
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        // An answer to another question is none to this one.
        setState((was) => ({ ...(was.path === path ? was : { path, at: 0 }), error: problemFrom(error), loading: false }));
        later();
      },
    );
    return () => {
      abort.abort();
      window.clearTimeout(timer.current);
    };
  }, [path, turn, every, back]);
  useEffect(() => {
    if (path === null || every === 0) return undefined;
    polls.value += 1;
    return () => void (polls.value -= 1);
  }, [path === null, every]);
  const { answer, at, error, loading } = state;
  // Who asks for nothing keeps what is known.
  const isOther = path !== null && state.path !== path;
  return { answer, data: answer?.data, at, error: isOther ? undefined : error, loading: loading || isOther, isOther: isOther && answer !== undefined, again: () => setTurn((turn) => turn + 1) };
}
