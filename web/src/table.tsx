// A table of rows that come: only those in sight are drawn. It follows the newest until a person looks elsewhere.
import type { TargetedKeyboardEvent, TargetedPointerEvent } from 'preact';
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { isNumeric, type Column, type Feed, type Row } from './rows';
import { count } from './widgets';

const HEIGHT = 28;
const WORDS: { [kind: string]: [string, string] } = {
  insert: ['+I', 'inserted'], updateBefore: ['−U', 'was'], updateAfter: ['+U', 'is now'], delete: ['−D', 'deleted'],
};

export interface Sort {
  column: number;
  down: boolean;
}

interface Props {
  label: string;
  feed: Feed;
  columns: Column[];
  rows: Row[];
  kinds: boolean;
  picked: number | null;
  pick: (row: Row | null) => void;
  /** Sorting is for what stands still. */
  sort: Sort | null;
  setSort?: ((sort: Sort | null) => void) | undefined;
  follows: boolean;
  /** The newest stand on top: then nothing moves while somebody points at them. */
  newestFirst?: boolean;
}

export function LiveTable({ label, feed, columns, rows: latest, kinds, picked, pick, sort, setSort, follows, newestFirst = false }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(400);
  const [following, setFollowing] = useState(true);
  const touched = useRef(0);
  const [widths, setWidths] = useState<{ [column: string]: number }>({});
  const guessed = useRef<{ [column: string]: number }>({});
  const id = useId();
  const [pointed, setPointed] = useState(false);
  const held = useRef<{ rows: Row[]; total: number } | null>(null);
  if (!newestFirst || !pointed || feed.paused.value) held.current = null;
  else held.current ??= { rows: latest, total: feed.total };
  const rows = held.current?.rows ?? latest;
  const waiting = held.current ? feed.total - held.current.total : 0;
  const isFollowing = follows && following;

  useEffect(() => {
    const watch = new ResizeObserver(() => box.current && setHeight(box.current.clientHeight));
    if (box.current) watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element || !isFollowing) return;
    element.scrollTop = element.scrollHeight;
    setTop(element.scrollTop);
  }, [rows, isFollowing]);
  // The page's own scroll lags behind the end under load; only what a person has just done ends the following.
  const touch = () => (touched.current = performance.now());
  const scrolled = () => {
    const element = box.current;
    if (!element) return;
    setTop(element.scrollTop);
    if (performance.now() - touched.current > 300) return;
    setFollowing(element.scrollHeight - element.scrollTop - element.clientHeight < HEIGHT * 2);
  };

  const first = Math.max(0, Math.floor(top / HEIGHT) - 6);
  const seen = rows.slice(first, first + Math.ceil(height / HEIGHT) + 14);
  // As wide as what came first needs, within reason; wider by hand.
  for (const [index, column] of columns.entries()) {
    if (rows.length === 0 || (guessed.current[column.name] !== undefined && rows.length > 300)) continue;
    const longest = rows.slice(-40).reduce((most, row) => Math.max(most, shown(feed.cells(row)[index], column).length), column.name.length + 4);
    guessed.current[column.name] = Math.min(Math.max(longest * 7.6 + 26, 70, guessed.current[column.name] ?? 0), column.most ?? 380);
  }
  const width = (column: Column) => widths[column.name] ?? guessed.current[column.name] ?? 140;
  const all = [...(kinds ? [86] : []), ...columns.map(width)];
  // A text at the end takes what room there is; a number stays beside its neighbours.
  const last = columns[columns.length - 1];
  const fills = last !== undefined && !isNumeric(last);
  const template = all.map((pixels, index) => (fills && index === all.length - 1 ? `minmax(${pixels}px, 1fr)` : `${pixels}px`)).join(' ');
  const whole = `${all.reduce((sum, pixels) => sum + pixels, 0)}px`;

  const move = (event: TargetedKeyboardEvent<HTMLElement>) => {
    const at = rows.findIndex((row) => row.n === picked);
    const page = Math.max(1, Math.floor(height / HEIGHT) - 2);
    const steps: { [key: string]: number } = { ArrowDown: at + 1, ArrowUp: at < 0 ? rows.length - 1 : at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 };
    if (event.target !== event.currentTarget) return alongHead(event, box.current!);
    // The head is one step to the right: no stop of Tab for each column.
    if (event.key === 'ArrowRight') {
      event.preventDefault();
      return headOf(box.current!)[0]?.focus();
    }
    if (event.key === 'Escape' && picked !== null) return pick(null);
    if (event.key === ' ') {
      event.preventDefault();
      return feed.pause(!feed.paused.value);
    }
    const wanted = steps[event.key];
    if (wanted === undefined || rows.length === 0) return;
    event.preventDefault();
    const next = Math.min(Math.max(wanted, 0), rows.length - 1);
    setFollowing(event.key === 'End');
    pick(rows[next]!);
    const element = box.current!;
    const [above, below] = [next * HEIGHT, (next + 2) * HEIGHT - element.clientHeight];
    if (element.scrollTop > above) element.scrollTop = above;
    else if (element.scrollTop < below) element.scrollTop = below;
  };
  const isDrawn = picked !== null && seen.some((row) => row.n === picked);

  return (
    <div class="live">
      <div class="grid" ref={box} role="grid" aria-label={label} aria-rowcount={rows.length + 1} tabIndex={0} style={{ height: `${(rows.length + 1) * HEIGHT + 20}px` }} onScroll={scrolled} onKeyDown={(event) => (touch(), move(event))}
        onPointerEnter={() => setPointed(true)} onPointerLeave={() => setPointed(false)} onFocusCapture={() => setPointed(true)} onBlurCapture={() => setPointed(false)}
        onWheel={touch} onPointerDown={touch} onTouchMove={touch} aria-activedescendant={isDrawn ? `${id}${picked}` : undefined}>
        <div role="rowgroup" class="grid-head" style={{ minWidth: whole }}>
          <div role="row" class="grid-row" style={{ gridTemplateColumns: template }}>
            {kinds && <span role="columnheader">Change</span>}
            {columns.map((column, index) => (
              <span role="columnheader" key={index} class={isNumeric(column) ? 'num' : ''} title={`${column.name} ${column.type}`}
                aria-sort={sort?.column === index ? (sort.down ? 'descending' : 'ascending') : undefined}>
                {setSort ? (
                  <button type="button" class="plain" tabIndex={-1} onClick={() => setSort(sort?.column === index ? (sort.down ? null : { column: index, down: true }) : { column: index, down: false })}>
                    {column.name}{sort?.column === index && (sort.down ? ' ↓' : ' ↑')}
                  </button>
                ) : column.name}
                <Grip name={column.name} width={width(column)} set={(pixels) => setWidths((before) => ({ ...before, [column.name]: pixels }))} />
              </span>
            ))}
          </div>
        </div>
        <div role="rowgroup" class="grid-body" style={{ height: `${rows.length * HEIGHT}px`, minWidth: whole }}>
          {seen.map((row, index) => (
            <div role="row" key={row.n} id={`${id}${row.n}`} aria-rowindex={first + index + 2} aria-selected={row.n === picked}
              class={`grid-row ${row.kind}${row.n === picked ? ' selected' : ''}`} onClick={() => pick(row)}
              style={{ gridTemplateColumns: template, transform: `translateY(${(first + index) * HEIGHT}px)` }}>
              {row.kind === 'mark' ? <span role="gridcell" class="mark">{row.text}</span> : (
                <>
                  {kinds && <span role="gridcell" class="kind">{WORDS[row.kind]![0]} {WORDS[row.kind]![1]}</span>}
                  {columns.map((column, place) => <Cell key={place} of={feed.cells(row)[place]} column={column} />)}
                </>
              )}
            </div>
          ))}
        </div>
      </div>
      {follows && !following && <button type="button" class="newest" onClick={() => setFollowing(true)}>Follow the newest ↓</button>}
      {waiting > 0 && <button type="button" class="newest" onClick={() => setPointed(false)}>{count(waiting)} new, show</button>}
    </div>
  );
}

/** What can have the focus in the head: to sort by, and widths. */
function headOf(box: HTMLElement): HTMLElement[] {
  return [...box.querySelectorAll<HTMLElement>('.grid-head button, .grid-head .grip')];
}

/** Left and right go along the head; on a width with Shift, for there they make it wider and narrower. Escape and down lead back to the rows. */
function alongHead(event: TargetedKeyboardEvent<HTMLElement>, box: HTMLElement): void {
  const all = headOf(box);
  const at = all.indexOf(event.target as HTMLElement);
  if (at < 0) return;
  const isGrip = all[at]!.classList.contains('grip');
  const step = isGrip && !event.shiftKey ? 0 : { ArrowRight: 1, ArrowLeft: -1 }[event.key as 'ArrowLeft'] ?? 0;
  const next = all[at + step];
  if (event.key === 'Escape' || event.key === 'ArrowDown' || (step < 0 && !next)) box.focus();
  else if (step !== 0 && next) next.focus();
  else return;
  event.preventDefault();
}

export function shown(value: unknown, column?: Column): string {
  if (value === undefined) return 'none';
  if (value === null) return 'null';
  if (column?.written) return column.written(value);
  if (typeof value === 'object') return JSON.stringify(value);
  return String(value);
}

function Cell({ of, column }: { of: unknown; column: Column }) {
  const number = isNumeric(column);
  if (of === undefined) return <span role="gridcell" class={number ? 'nothing num' : 'nothing'}>none</span>;
  if (of === null) return <span role="gridcell" class={number ? 'nothing num' : 'nothing'}>null</span>;
  if (of === '') return <span role="gridcell" class="nothing">empty</span>;
  return <span role="gridcell" class={number ? 'num' : ''}>{shown(of, column).slice(0, 400)}</span>;
}

/** Makes a column wider or narrower: by pointer, or by arrow keys. */
function Grip({ name, width, set }: { name: string; width: number; set: (pixels: number) => void }) {
  const begun = useRef<{ x: number; width: number } | null>(null);
  const to = (pixels: number) => set(Math.min(Math.max(pixels, 48), 1200));
  return (
    <span class="grip" role="separator" aria-orientation="vertical" tabIndex={-1} aria-label={`Width of ${name}`} aria-valuenow={Math.round(width)} aria-valuemin={48} aria-valuemax={1200}
      onPointerDown={(event: TargetedPointerEvent<HTMLElement>) => {
        begun.current = { x: event.clientX, width };
        event.currentTarget.setPointerCapture(event.pointerId);
        event.preventDefault();
      }}
      onPointerMove={(event) => begun.current && to(begun.current.width + event.clientX - begun.current.x)}
      onPointerUp={() => (begun.current = null)}
      onKeyDown={(event) => {
        if (event.shiftKey) return;
        const step = { ArrowLeft: -16, ArrowRight: 16 }[event.key as 'ArrowLeft'];
        if (step === undefined) return;
        event.preventDefault();
        to(width + step);
      }} />
  );
}
