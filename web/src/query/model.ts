// A query of somebody who looks: its text in a tab, and its run from Run to the end that the engine has told.
import { effect, signal, type Signal } from '@preact/signals';
import { ask, Problem } from '../api';
import { stream } from '../hub';
import { parse } from '../json';
import { Feed, cellsOf, columnsOf, kindOf } from '../rows';
import type { View } from '../watch';

export interface Engine {
  engine: string;
  isDefault: boolean;
  isReachable: boolean;
  capabilities: { version: string; canPause: boolean; canSavepoint: boolean; freeSlots: number | null } | null;
  trouble: string | null;
}

export interface Source {
  name: string;
  /** None of a view of the service. */
  topic?: string;
  columns: { name: string; type: string }[];
  /** What a join meets by its key; nothing to follow. */
  table?: { key: string[] };
  origin: string;
  engines: string[];
}

export type State = 'starting' | 'running' | 'stopping' | 'ended';

/** How it ended, for people. */
export interface End {
  kind: 'good' | 'bad' | 'wait';
  word: string;
  more?: string | undefined;
}

export class Run {
  readonly feed = new Feed(cellsOf);
  readonly state = signal<State>('starting');
  readonly end = signal<End | null>(null);
  readonly began = Date.now();
  over = 0;
  id = '';
  private readonly dispose: () => void;
  private told: End | null = null;

  constructor(readonly sql: string, readonly engine: string, readonly fromBeginning: boolean) {
    this.dispose = stream('ExecuteAdHoc', [sql, engine || null, fromBeginning], {
      next: (text) => this.take(text),
      end: (why, lost) => this.finish(why, lost),
    });
  }

  get seconds(): number {
    return Math.max(0, Math.round(((this.over || Date.now()) - this.began) / 1000));
  }

  private take(text: string): void {
    if (text.startsWith('{"row"') || text.startsWith('{"kind"')) return this.feed.add(kindOf(text), text);
    const line = parse<{ header?: { queryId?: string; schema?: string; columns?: { name: string; type: string }[] }; end?: string; finalMessage?: string; errorMessage?: { message: string }; reason?: string; dropped?: number }>(text);
    if (line.header) {
      this.id = line.header.queryId ?? '';
      this.feed.columns.value = columnsOf(line.header);
      if (this.state.value === 'starting') this.state.value = 'running';
      this.feed.draw();
    } else if (line.dropped) this.feed.lose(line.dropped);
    else if (line.end) this.told = endOf(line.end, line.errorMessage?.message, line.reason);
  }

  private finish(why: string | undefined, lost: boolean): void {
    if (this.state.value === 'ended') return;
    if (lost) this.close({ kind: 'bad', word: 'Connection lost', more: 'The query has ended with it. The rows that came are kept.' });
    else this.close(this.told ?? (why ? { kind: 'bad', word: 'Failed', more: why } : { kind: 'good', word: 'Complete' }));
  }

  private close(end: End): void {
    this.over = Date.now();
    this.end.value = end;
    this.state.value = 'ended';
    this.feed.draw();
  }

  /** Stops it, and says so once it is listed nowhere any more. */
  async stop(): Promise<void> {
    if (this.state.value === 'stopping' || this.state.value === 'ended') return;
    this.state.value = 'stopping';
    // The client tells nobody that it has let go: what follows is ours to find out.
    this.dispose();
    const until = Date.now() + 20_000;
    try {
      while (await this.isListed()) {
        if (Date.now() > until) return this.close({ kind: 'bad', word: 'Not stopped yet', more: 'The engine still lists the query after 20 s; Operations, Running queries, can end it.' });
        await new Promise((resolve) => setTimeout(resolve, 150));
      }
    } catch (error) {
      return this.close({ kind: 'wait', word: 'Stopped here', more: `Whether the engine has ended it could not be seen: ${error instanceof Problem ? error.detail : String(error)}` });
    }
    this.close({ kind: 'good', word: 'Stopped' });
  }

  private async isListed(): Promise<boolean> {
    const { items } = (await ask<{ items: { id: string; sqlScript: string; engine: string; startedAt: string }[] }>('/api/queries')).data;
    return items.some((query) => (this.id ? query.id.replaceAll('-', '') === this.id.replaceAll('-', '') : query.sqlScript === this.sql && query.engine === this.engine && Date.parse(query.startedAt) >= this.began - 5000));
  }
}

function endOf(word: string, message: string | undefined, reason: string | undefined): End {
  switch (word) {
    case 'limit': return { kind: 'wait', word: 'Ended at its limit', more: reason };
    case 'complete': return { kind: 'good', word: 'Complete', more: reason };
    case 'cancelled': return { kind: 'wait', word: 'Ended by somebody', more: reason };
    case 'interrupted': return { kind: 'bad', word: 'Interrupted', more: [message, reason].filter(Boolean).join(' ') };
    default: return { kind: 'bad', word: 'Failed', more: [message, reason].filter(Boolean).join(' ') };
  }
}

/** The faults that a refusal names, each with its place, as the hub writes them. */
export function faultsIn(words: string): { code: string; message: string; line: number; column: number }[] {
  return words.split(/;\s+(?=line \d)/).flatMap((part) => {
    const [, line, column, message] = /^line (\d+), column (\d+): ([\s\S]*)$/.exec(part) ?? [];
    return line ? [{ code: 'refused', message: message!, line: Number(line), column: Number(column) }] : [];
  });
}

export interface Tab {
  id: number;
  text: Signal<string>;
  engine: Signal<string>;
  fromBeginning: Signal<boolean>;
  view: Signal<View>;
  find: Signal<string>;
  run: Signal<Run | null>;
}

let made = 0;

export function newTab(from: { text?: string; engine?: string; fromBeginning?: boolean; view?: View; find?: string } = {}): Tab {
  made += 1;
  return {
    id: made, text: signal(from.text ?? ''), engine: signal(from.engine ?? ''), fromBeginning: signal(from.fromBeginning ?? true),
    view: signal<View>(from.view ?? 'changes'), find: signal(from.find ?? ''), run: signal<Run | null>(null),
  };
}

const STORED = 'streamview.query';

function stored(): { tabs: Tab[]; at: number } {
  try {
    const { tabs, at } = JSON.parse(sessionStorage.getItem(STORED) ?? '') as { tabs: Parameters<typeof newTab>[0][]; at: number };
    if (tabs.length > 0) return { tabs: tabs.map((tab) => newTab(tab)), at: Math.min(Math.max(at, 0), tabs.length - 1) };
  } catch {
    // nothing is stored
  }
  return { tabs: [newTab()], at: 0 };
}

const first = stored();
/** They outlive a visit to another page, and what is written in them a reload. */
export const tabs = signal<Tab[]>(first.tabs);
export const active = signal<Tab>(first.tabs[first.at]!);

effect(() => {
  const all = tabs.value.map((tab) => ({ text: tab.text.value, engine: tab.engine.value, fromBeginning: tab.fromBeginning.value, view: tab.view.value, find: tab.find.value }));
  const isEmpty = all.length === 1 && all[0]!.text === '';
  try {
    if (isEmpty) sessionStorage.removeItem(STORED);
    else sessionStorage.setItem(STORED, JSON.stringify({ tabs: all, at: tabs.value.indexOf(active.value) }));
  } catch {
    // a browser that keeps nothing
  }
});

/** What a tab is called: what it selects from. */
export function nameOf(text: string): string {
  const source = /\bfrom\s+[`"]?([\w.-]+)/i.exec(text)?.[1];
  return source ? `from ${source}` : text.trim() ? text.trim().slice(0, 18) : 'New query';
}

const SAVED = 'streamview.saved';

/** A query that somebody has kept under a name, in this browser. */
export interface Saved {
  name: string;
  text: string;
  engine: string;
  fromBeginning: boolean;
  at: number;
}

/** By name. */
export const saved = signal<Saved[]>(readSaved());

function readSaved(): Saved[] {
  try {
    return JSON.parse(localStorage.getItem(SAVED) ?? '[]') as Saved[];
  } catch {
    return [];
  }
}

// Another tab of the browser has saved one.
window.addEventListener('storage', ({ key }) => key === SAVED && (saved.value = readSaved()));

/** Keeps one, in the place of what had its name; gives why it could not be kept. */
export function save(query: Saved): string {
  return write([...readSaved().filter(({ name }) => name !== query.name), query]);
}

export function forget(name: string): string {
  return write(readSaved().filter((query) => query.name !== name));
}

function write(all: Saved[]): string {
  all.sort((one, other) => one.name.localeCompare(other.name, 'en', { numeric: true }));
  try {
    if (all.length === 0) localStorage.removeItem(SAVED);
    else localStorage.setItem(SAVED, JSON.stringify(all));
  } catch (error) {
    return `This browser keeps nothing: ${error instanceof Error ? error.message : String(error)}`;
  }
  saved.value = all;
  return '';
}

/** A long text, small enough for an address. */
export async function packed(text: string): Promise<string> {
  const bytes = new Uint8Array(await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream('deflate-raw'))).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** The other way round; null if it is none. */
export async function unpacked(text: string): Promise<string | null> {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (letter) => letter.charCodeAt(0));
    return await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'))).text();
  } catch {
    return null;
  }
}

const PAST = 'streamview.queries';

/** What this browser has run, the latest first. */
export function past(): string[] {
  try {
    return JSON.parse(localStorage.getItem(PAST) ?? '[]') as string[];
  } catch {
    return [];
  }
}

export function remember(text: string): void {
  try {
    localStorage.setItem(PAST, JSON.stringify([text, ...past().filter((one) => one !== text)].slice(0, 30)));
  } catch {
    // a browser that keeps nothing
  }
}
