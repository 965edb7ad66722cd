// Rows as they come: the last 10,000, drawn ten times a second however many come, as changes or as what is so now.
import { signal } from '@preact/signals';
import { faithful, parse } from './json';

/** So many are kept. */
export const MOST = 10_000;
const DRAW_EVERY = 100;

export type Kind = 'insert' | 'updateBefore' | 'updateAfter' | 'delete' | 'mark';

export interface Row {
  /** From 1, in the order in which they came. */
  n: number;
  kind: Kind;
  /** As it was sent. */
  text: string;
  cells?: unknown[];
}

export interface Column {
  name: string;
  type: string;
  /** Most pixels that it takes by itself. */
  most?: number;
  /** How a value is written, where that is not as it is. */
  written?: (value: unknown) => string;
}

export function isNumeric({ type }: Column): boolean {
  return /^(tiny|small|big)?int|^integer|^double|^float|^real|^decimal|^numeric/i.test(type);
}

/** One row for each key, and up to which row that is so. */
interface Now {
  /** Columns, by number; null: nobody has asked for it. */
  key: string | null;
  upTo: number;
  rows: Map<string, Row>;
  forgotten: number;
  /** Whether rows that were kept no more when it was asked for are not in it. */
  partial: boolean;
}

function nothing(key: string | null = null, partial = false): Now {
  return { key, upTo: 0, rows: new Map(), forgotten: 0, partial };
}

export class Feed {
  readonly columns = signal<Column[]>([]);
  /** Counts draws. */
  readonly drawn = signal(0);
  readonly paused = signal(false);
  /** All that came, and all that was not shown. */
  total = 0;
  dropped = 0;
  /** Rows a second. */
  rate = 0;
  /** Whether rows replace others. */
  changes = false;
  private ring: Row[] = [];
  private stood: { rows: Row[]; total: number; now: Now; cut: boolean } | null = null;
  private timer = 0;
  private n = 0;
  private second = { begin: 0, total: 0 };
  private now = nothing();

  constructor(private readonly read: (text: string) => unknown[]) {}

  add(kind: Kind, text: string): void {
    this.n += 1;
    if (this.second.begin === 0) this.second.begin = performance.now();
    if (kind !== 'mark') {
      this.total += 1;
      if (kind !== 'insert') this.changes = true;
    }
    this.ring.push({ n: this.n, kind, text });
    // Now and then, not at each row.
    if (this.ring.length > MOST * 1.2) {
      this.gather();
      this.ring.splice(0, this.ring.length - MOST);
    }
    this.draw();
  }

  /** Something that is no row and has its place among them. */
  mark(text: string): void {
    this.add('mark', text);
  }

  lose(count: number): void {
    this.dropped += count;
    this.mark(`${count.toLocaleString('en-GB')} not shown: they came faster than rows are shown`);
  }

  /** `again`: the same comes once more; who has paused keeps what stands there. */
  clear({ again = false } = {}): void {
    this.ring = [];
    this.total = 0;
    this.second = { begin: 0, total: 0 };
    this.rate = 0;
    this.dropped = 0;
    this.now = nothing();
    if (this.stood) this.stood = again ? { ...this.stood, total: 0 } : { rows: [], total: 0, now: nothing(), cut: false };
    this.draw();
  }

  draw(): void {
    if (this.timer) return;
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      const at = performance.now();
      const seconds = (at - this.second.begin) / 1000;
      if (this.second.begin > 0 && seconds >= 1) {
        this.rate = seconds < 5 ? (this.total - this.second.total) / seconds : 0;
        this.second = { begin: at, total: this.total };
        // Once more, so that a rate falls when nothing comes.
        if (this.rate > 0) window.setTimeout(() => this.draw(), 1100);
      }
      this.drawn.value += 1;
    }, DRAW_EVERY);
  }

  pause(on: boolean): void {
    // What is so now was gathered over all that came, of which the ring has the last alone.
    if (on) this.gather();
    const rows = this.latest();
    this.stood = on ? { rows, total: this.total, now: { ...this.now, rows: new Map(this.now.rows) }, cut: this.isCut(rows) } : null;
    this.paused.value = on;
    this.drawn.value += 1;
  }

  /** How many came while it stands. */
  get waiting(): number {
    return this.stood ? this.total - this.stood.total : 0;
  }

  cells(row: Row): unknown[] {
    if (row.kind === 'mark') return [];
    row.cells ??= this.read(row.text);
    return row.cells;
  }

  /** Every change, in its order. */
  kept(): Row[] {
    return this.stood?.rows ?? this.latest();
  }

  /** One row for each key: the latest, at the place of the first. */
  current(key: number[]): { rows: Row[]; forgotten: number; partial: boolean } {
    const name = key.join();
    let now = this.stood?.now ?? this.now;
    if (now.key !== name) {
      const kept = this.kept();
      now = nothing(name, this.stood?.cut ?? this.isCut(kept));
      for (const row of kept) this.take(now, row, key);
      if (!this.stood) this.now = now;
    } else if (!this.stood) this.gather();
    return { rows: [...now.rows.values()], forgotten: now.forgotten, partial: now.partial };
  }

  /** What has come since, for the key that was asked for last. */
  private gather(): void {
    if (this.now.key === null) return;
    const key = this.now.key === '' ? [] : this.now.key.split(',').map(Number);
    const from = this.ring.findIndex((row) => row.n > this.now.upTo);
    if (from >= 0) for (const row of this.ring.slice(from)) this.take(this.now, row, key);
  }

  private take(now: Now, row: Row, key: number[]): void {
    now.upTo = row.n;
    // What was is replaced by what is; only a deletion takes it away.
    if (row.kind === 'mark' || row.kind === 'updateBefore') return;
    const cells = this.cells(row);
    const id = JSON.stringify(key.map((index) => cells[index]));
    if (row.kind === 'delete') now.rows.delete(id);
    else now.rows.set(id, row);
    if (now.rows.size > MOST) {
      now.rows.delete(now.rows.keys().next().value!);
      now.forgotten += 1;
    }
  }

  /** Whether more has come than these. */
  private isCut(rows: Row[]): boolean {
    return this.total > rows.filter(({ kind }) => kind !== 'mark').length;
  }

  private latest(): Row[] {
    return this.ring.length > MOST ? this.ring.slice(-MOST) : this.ring.slice();
  }
}

/** A row of a query or a stream: `{"row":{"columns":[…]}}`, with its kind where it is no insert. */
export function cellsOf(text: string): unknown[] {
  return parse<{ row: { columns: unknown[] } }>(text).row.columns;
}

export function kindOf(text: string): Kind {
  const word = /^\{"kind":"(\w+)"/.exec(text)?.[1] ?? /"kind":"(\w+)"\}$/.exec(text)?.[1];
  return (word as Kind | undefined) ?? 'insert';
}

/** The row as an object, with every digit. */
export function recordOf(text: string, columns: Column[]): string {
  const cells = faithful<{ row: { columns: unknown[] } }>(text).row.columns;
  return JSON.stringify(Object.fromEntries(cells.map((cell, index) => [columns[index]?.name ?? `column ${index + 1}`, cell])));
}

/** The columns of a header: as they are listed, else as ksqlDB writes them in one text. */
export function columnsOf(header: { schema?: string; columns?: { name: string; type: string }[] }): Column[] {
  if (header.columns) return header.columns.map(({ name, type }) => ({ name, type: typeof type === 'string' ? type : JSON.stringify(type) }));
  const columns: Column[] = [];
  let [depth, quoted, begin] = [0, false, 0];
  const schema = `${header.schema ?? ''},`;
  for (let at = 0; at < schema.length; at += 1) {
    const letter = schema[at];
    if (letter === '`') quoted = !quoted;
    else if (quoted) continue;
    else if (letter === '<' || letter === '(') depth += 1;
    else if (letter === '>' || letter === ')') depth -= 1;
    else if (letter === ',' && depth === 0) {
      const part = schema.slice(begin, at).trim();
      begin = at + 1;
      const [, name, plain, type] = /^(?:`((?:[^`]|``)*)`|(\S+))\s*(.*)$/.exec(part) ?? [];
      if (part) columns.push({ name: (name ?? plain ?? '').replaceAll('``', '`'), type: type ?? '' });
    }
  }
  return columns;
}

/** By which columns rows are told apart: those of the first list that has any of them, else the first. */
export function keyOf(columns: Column[], ...lists: (string[] | null)[]): { names: string[]; key: number[] } {
  const numbers = (names: string[]) => columns.flatMap((column, index) => (names.some((name) => same(column.name, name)) ? [index] : []));
  const names = lists.find((list) => list && numbers(list).length > 0) ?? columns.slice(0, 1).map(({ name }) => name);
  return { names, key: numbers(names) };
}

function same(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase();
}

/** What stands before what: numbers by their size, also those that are longer than a double. */
export function compare(one: unknown, other: unknown): number {
  if (one === other) return 0;
  if (one === null || one === undefined) return -1;
  if (other === null || other === undefined) return 1;
  const [a, b] = [Number(one), Number(other)];
  if (!Number.isNaN(a) && !Number.isNaN(b) && a !== b) return a - b;
  const [left, right] = [String(one), String(other)];
  return left.localeCompare(right, 'en', { numeric: true });
}
