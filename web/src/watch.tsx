// Rows that somebody watches: the table, how it is shown, and the record of the row that is picked.
import type { ComponentChildren } from 'preact';
import { useMemo, useState } from 'preact/hooks';
import { faithful } from './json';
import { Record } from './record';
import { compare, keyOf, MOST, recordOf, type Column, type Feed, type Row } from './rows';
import { LiveTable, type Sort } from './table';
import { Copy, count, Download, Toolbar } from './widgets';

export type View = 'changes' | 'current';

interface Props {
  feed: Feed;
  label: string;
  name: string;
  /** Whether more may come. */
  live: boolean;
  view: View;
  setView?: (view: View) => void;
  /** The columns that are the key, by name, if they are known. */
  keyed?: string[];
  find: string;
  setFind: (find: string) => void;
  /** Which rows are shown at all. */
  only?: ((cells: unknown[]) => boolean) | undefined;
  record?: (row: Row, columns: Column[]) => string;
  empty: ComponentChildren;
  tools?: ComponentChildren;
  /** Whether the newest stand on top, if that can be chosen. */
  newest?: boolean;
  setNewest?: (newest: boolean) => void;
  /** What can be copied of a row beside its value: a label, and the text. */
  copies?: (row: Row) => [string, string][];
}

export function Watch({ feed, label, name, live, view, setView, keyed = [], find, setFind, only, record, empty, tools, newest = false, setNewest, copies }: Props) {
  void feed.drawn.value;
  const columns = feed.columns.value;
  const [picked, setPicked] = useState<Row | null>(null);
  const [sort, setSort] = useState<Sort | null>(null);
  const [chosen, setChosen] = useState<string[] | null>(null);
  // Other columns may come than those that were chosen from.
  const { names, key } = keyOf(columns, chosen, keyed);
  const stands = feed.paused.value || !live;
  const { rows, hidden, forgotten, partial, kept } = useMemo(() => {
    const current = view === 'current' ? feed.current(key) : null;
    const kept = current?.rows ?? feed.kept();
    const words = find.toLowerCase();
    let rows = kept;
    if (words) rows = rows.filter((row) => row.kind !== 'mark' && row.text.toLowerCase().includes(words));
    if (only) rows = rows.filter((row) => row.kind === 'mark' || only(feed.cells(row)));
    if (sort && stands) {
      const side = sort.down ? -1 : 1;
      rows = rows.filter(({ kind }) => kind !== 'mark').sort((one, other) => side * compare(feed.cells(one)[sort.column], feed.cells(other)[sort.column]));
    }
    const hidden = kept.length - rows.length;
    if (newest && !(sort && stands)) rows = [...rows].reverse();
    return { rows, hidden, forgotten: current?.forgotten ?? 0, partial: current?.partial ?? false, kept: kept.length };
  }, [feed, feed.drawn.value, view, key.join(), find, only, sort, stands, newest]);
  const asObject = (row: Row) => (record ?? ((row, columns) => recordOf(row.text, columns)))(row, columns);

  return (
    <>
      <div class="filters slim">
        {setView && (
          <fieldset class="toggles">
            <legend>Shown as</legend>
            <Toolbar label="Shown as" class="toggles">
              <button type="button" aria-pressed={view === 'changes'} onClick={() => setView('changes')}>Changes</button>
              <button type="button" aria-pressed={view === 'current'} onClick={() => setView('current')}>Current</button>
            </Toolbar>
          </fieldset>
        )}
        {setView && view === 'current' && columns.length > 1 && (
          <label>
            <span>A row for each</span>
            <select value={names.join(', ')} onChange={(event) => setChosen(event.currentTarget.value.split(', '))}>
              {[...new Set([names.join(', '), ...columns.map(({ name }) => name)])].map((name) => <option key={name}>{name}</option>)}
            </select>
          </label>
        )}
        <label>
          <span>Find in what is kept</span>
          <input type="search" data-filter value={find} placeholder="any text" onInput={(event) => setFind(event.currentTarget.value)} />
        </label>
        {tools}
        {setNewest && (
          <label><span>Order</span>
            <select value={newest ? 'newest' : 'as they come'} onChange={(event) => setNewest(event.currentTarget.value === 'newest')}>
              <option value="as they come">newest at the end</option><option value="newest">newest on top</option>
            </select>
          </label>
        )}
        <Toolbar label="Download" class="tools end"><Download name={name} rows={() => rows.filter(({ kind }) => kind !== 'mark').map((row) => faithful<object>(asObject(row)))} /></Toolbar>
      </div>
      {feed.total === 0 && kept === 0 ? <div class="empty">{empty}</div> : (
        <div class={picked ? 'watch open' : 'watch'}>
          <LiveTable label={label} feed={feed} columns={columns} rows={rows} kinds={feed.changes && view === 'changes'} picked={picked?.n ?? null}
            pick={(row) => setPicked(row?.kind === 'mark' ? null : row)} sort={stands ? sort : null} setSort={stands ? setSort : undefined} follows={!stands && !sort && view === 'changes' && !newest} newestFirst={newest && !stands} />
          {picked && (
            <aside class="picked" aria-label="The picked row">
              <div class="head"><h2>Row {count(picked.n)}</h2><div class="tools">{copies?.(picked).map(([label, text]) => <Copy key={label} label={label} text={text} />)}<button type="button" class="quiet" onClick={() => setPicked(null)}>Close</button></div></div>
              <Record key={picked.n} text={asObject(picked)} label={`Row ${picked.n}`} />
            </aside>
          )}
        </div>
      )}
      {(feed.total > 0 || kept > 0) && <p class="small muted bounds">
        {view === 'current' ? `${count(kept)} rows as they are now, by ${names.join(', ')}` : feed.total > MOST ? `The last ${count(Math.min(kept, MOST))} of ${count(feed.total)} rows` : `${count(feed.total)} rows`}
        {partial && `; keys that last changed before the ${count(MOST)} rows that were kept when this was chosen are not here`}
        {forgotten > 0 && `; ${count(forgotten)} more keys are not kept`}
        {hidden > 0 && `; ${count(hidden)} hidden by what is looked for`}
        {feed.dropped > 0 && `; ${count(feed.dropped)} came too fast and were not shown`}.
        {' '}{stands ? 'Click a column to sort by it.' : 'Pause to sort.'}
      </p>}
    </>
  );
}
