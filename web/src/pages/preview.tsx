// Live preview: the rows of a stream under its columns, or the records of a topic as they lie there, while they come.
import type { ComponentChildren } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { useAsk } from '../api';
import { stream as watch } from '../hub';
import { parse } from '../json';
import { follow } from '../live';
import type { PageProps } from '../pages';
import { COLUMNS, copiesOf, recordCells, type Record } from '../preview/records';
import { change, place, to } from '../router';
import { cellsOf, columnsOf, Feed, kindOf, type Row } from '../rows';
import { Apart } from '../streams/list';
import { kindOf as kindOfState, word, type Stream } from '../streams/model';
import { clock, fieldOf, instantOf, zoneName } from '../time';
import { Watch, type View } from '../watch';
import { CopyCurl, count, rate, Shown, State, Toolbar } from '../widgets';

export default function Preview({ named }: PageProps) {
  return named.name === undefined ? <OfStream key={named.id} id={named.id!} /> : <OfTopic key={named.name} topic={named.name} />;
}

type Standing = { state: 'connecting' | 'live' | 'over'; word?: string };

/** What is typed to find something stands behind `#`. */
function useFind(): [string, (find: string) => void] {
  return [place.value.hash.get('find') ?? '', (find) => change({ find }, { hash: true })];
}

function OfStream({ id }: { id: string }) {
  const asked = useAsk<Stream>(`/api/streams/${encodeURIComponent(id)}`, { every: 3000 });
  return (
    <section>
      <p class="small"><a href={to(['streams'])}>All streams</a> · <a href={to(['streams', id])}>The stream</a></p>
      <Shown of={asked} what="the stream">
        {(stream) => (
          <>
            <div class="head">
              <h1>{stream.name}, live</h1>
              <State kind={kindOfState(stream.state)}>{word(stream)}</State>
              <Apart stream={stream} />
            </div>
            <p class="small muted">Rows of <code>{stream.outputTopic}</code> under the columns of its text, from now on. <a href={to(['topics', stream.outputTopic, 'live'], { from: 'earliest' })}>The records themselves, from the beginning</a></p>
            <Rows stream={stream} />
          </>
        )}
      </Shown>
    </section>
  );
}

function Rows({ stream }: { stream: Stream }) {
  const feed = useMemo(() => new Feed(cellsOf), []);
  const [standing, setStanding] = useState<Standing>({ state: 'connecting' });
  const [turn, setTurn] = useState(0);
  const [find, setFind] = useFind();
  const stop = useRef<() => void>(() => undefined);
  const view: View = place.value.query.get('view') === 'current' ? 'current' : 'changes';
  useEffect(() => {
    let timer = 0;
    let quiet = 0;
    setStanding((now) => (now.state === 'connecting' ? now : { state: 'connecting' }));
    const end = watch('ViewStream', [stream.id], {
      // A topic that nobody has written to yet has no columns to tell.
      open: () => (quiet = window.setTimeout(() => setStanding((now) => (now.state === 'connecting' ? { state: 'live' } : now)), 1500)),
      next: (text) => {
        if (text.startsWith('{"row"') || text.startsWith('{"kind"')) return feed.add(kindOf(text), text);
        const line = parse<{ header?: { schema?: string }; dropped?: number }>(text);
        if (line.header) {
          feed.columns.value = columnsOf(line.header);
          feed.draw();
          setStanding({ state: 'live' });
        } else if (line.dropped) feed.lose(line.dropped);
      },
      end: (why, lost) => {
        window.clearTimeout(quiet);
        // What is lost with a connection begins again by itself, and the gap is marked.
        if (lost) {
          const at = Date.now();
          feed.mark(`Not connected since ${clock(at)} ${zoneName(at)}: rows from then on until it goes on below are missing`);
          setStanding({ state: 'connecting', word: `As of ${clock(at)} ${zoneName(at)}; connecting again` });
          timer = window.setTimeout(() => setTurn((turn) => turn + 1), 3000);
        } else setStanding({ state: 'over', word: why ?? 'Nothing more comes.' });
      },
    });
    stop.current = () => {
      end();
      window.clearTimeout(timer);
      window.clearTimeout(quiet);
    };
    return () => stop.current();
  }, [stream.id, turn]);
  return (
    <>
      <Bar feed={feed} standing={standing} stop={() => {
        stop.current();
        setStanding({ state: 'over', word: 'Stopped' });
      }} again={() => setTurn((turn) => turn + 1)}>
        <CopyCurl path={`/api/topics/${stream.outputTopic}/rows?from=latest`} what="the rows" />
      </Bar>
      <Watch feed={feed} label={`Rows of ${stream.name}`} name={stream.outputTopic} live={standing.state !== 'over'} view={view} setView={(view) => change({ view: view === 'changes' ? null : view })}
        newest={place.value.query.get('order') === 'newest'} setNewest={(on) => change({ order: on ? 'newest' : null })}
        find={find} setFind={setFind} empty={stream.state === 'running' ? 'No row yet. What its sources get from now on is shown here.' : <>No row comes as long as the stream does not run. <a href={to(['streams', stream.id])}>To the stream</a></>} />
    </>
  );
}

const BEGINNINGS: [string, string][] = [['latest', 'what comes'], ['earliest', 'the earliest'], ['offset', 'an offset …'], ['time', 'a time …']];

function OfTopic({ topic }: { topic: string }) {
  const { query, hash } = place.value;
  const from = query.get('from') ?? 'latest';
  const [kind, given] = from.includes(':') ? [from.slice(0, from.indexOf(':')), from.slice(from.indexOf(':') + 1)] : [from, ''];
  const [chosen, setChosen] = useState(kind);
  const feed = useMemo(() => new Feed(recordCells), []);
  const [standing, setStanding] = useState<Standing>({ state: 'connecting' });
  const [turn, setTurn] = useState(0);
  const [find, setFind] = useFind();
  const stop = useRef<() => void>(() => undefined);
  const path = `/api/topics/${encodeURIComponent(topic)}/rows?from=${encodeURIComponent(from)}`;
  const partition = query.get('partition') ?? '';
  const key = hash.get('key') ?? '';
  useEffect(() => {
    const schemas = new Map<number, number>();
    let opened = false;
    feed.columns.value = COLUMNS;
    feed.clear();
    setStanding({ state: 'connecting' });
    stop.current = follow({
      path,
      open: () => {
        // What begins at a place in the topic begins there again, and would be shown twice.
        if (opened && from !== 'latest') feed.clear({ again: true });
        opened = true;
        schemas.clear();
        setStanding({ state: 'live' });
      },
      lost: () => {
        const at = Date.now();
        if (from === 'latest' && feed.total > 0) feed.mark(`Not connected since ${clock(at)} ${zoneName(at)}: records from then on until it goes on below are missing`);
        setStanding({ state: 'connecting', word: `As of ${clock(at)} ${zoneName(at)}; connecting again` });
      },
      event: ({ name, data }) => {
        if (name === 'row') {
          const { partition, schemaId } = parse<Record>(data);
          const before = schemas.get(partition);
          // Within a partition: between partitions nothing says what came first.
          if (schemaId !== undefined && before !== undefined && before !== schemaId) feed.mark(`Partition ${partition} goes on with schema ${schemaId}, after ${before}`);
          if (schemaId !== undefined) schemas.set(partition, schemaId);
          feed.add('insert', data);
        } else if (name === 'dropped') feed.lose(parse<{ rows: number }>(data).rows);
        else if (name === 'end') {
          stop.current();
          setStanding({ state: 'over', word: parse<{ reason: string }>(data).reason });
        }
      },
    });
    return () => stop.current();
  }, [path, turn]);
  const only = partition === '' && key === '' ? undefined : (cells: unknown[]) => (partition === '' || String(cells[1]) === partition) && (key === '' || String(cells[3] ?? '').includes(key));
  const begin = (kind: string, value = '') => change({ from: kind === 'latest' ? null : value ? `${kind}:${value}` : kind });
  return (
    <section>
      <p class="small"><a href={to(['streams'])}>All streams</a></p>
      <div class="head"><h1 class="mono">{topic}</h1><span class="small muted">live; by partition in its order, between partitions as they come</span></div>
      <Bar feed={feed} standing={standing} stop={() => {
        stop.current();
        setStanding({ state: 'over', word: 'Stopped' });
      }} again={() => setTurn((turn) => turn + 1)}>
        <CopyCurl path={path} what="the records" />
      </Bar>
      <Watch feed={feed} label={`Records of ${topic}`} name={topic} live={standing.state !== 'over'} view="changes" find={find} setFind={setFind} only={only}
        record={(row: Row) => row.text} copies={copiesOf} newest={query.get('order') === 'newest'} setNewest={(on) => change({ order: on ? 'newest' : null })} empty={standing.state === 'over' ? standing.word : from === 'latest' ? <>No record yet. What the topic gets from now on is shown here, or <button type="button" class="quiet" onClick={() => (setChosen('earliest'), begin('earliest'))}>begin with the earliest</button></> : 'No record lies there.'}
        tools={(
          <>
            <label><span>Begin with</span>
              <select value={chosen} onChange={(event) => {
                const kind = event.currentTarget.value;
                setChosen(kind);
                if (kind === 'latest' || kind === 'earliest') begin(kind);
              }}>{BEGINNINGS.map(([value, title]) => <option key={value} value={value}>{title}</option>)}</select>
            </label>
            {chosen === 'offset' && <label><span>Offset of each partition</span><input type="number" min={0} value={kind === 'offset' ? given : ''} onChange={(event) => event.currentTarget.value && begin('offset', event.currentTarget.value)} /></label>}
            {chosen === 'time' && <label><span>Not before</span><input type="datetime-local" step={1} value={kind === 'time' ? fieldOf(given) : ''} onChange={(event) => event.currentTarget.value && begin('time', instantOf(event.currentTarget.value))} /></label>}
            <label><span>Partition</span><input type="number" min={0} class="short" value={partition} placeholder="all" onInput={(event) => change({ partition: event.currentTarget.value })} /></label>
            <label><span>Key has</span><input type="search" value={key} onInput={(event) => change({ key: event.currentTarget.value }, { hash: true })} /></label>
          </>
        )} />
    </section>
  );
}

function Bar({ feed, standing, stop, again, children }: { feed: Feed; standing: Standing; stop: () => void; again: () => void; children: ComponentChildren }) {
  void feed.drawn.value;
  const paused = feed.paused.value;
  const isOver = standing.state === 'over';
  const words = isOver ? (standing.word ?? 'Over') : standing.state === 'connecting' ? (standing.word ?? 'Connecting …') : paused ? `Paused, ${count(feed.waiting)} new` : 'Live';
  return (
    <div class="bar">
      <Toolbar label="What comes" main>
      <button type="button" aria-pressed={paused} aria-disabled={isOver && !paused} onClick={() => (!isOver || paused) && feed.pause(!paused)}>{paused ? 'Resume' : 'Pause'}</button>
      {isOver ? <button type="button" class="primary" onClick={again}>Go on</button> : <button type="button" onClick={stop}>Stop</button>}
      </Toolbar>
      <State kind={isOver ? 'idle' : standing.state === 'connecting' ? 'wait' : 'on'}>{words}</State>
      <span class="unseen" role="status">{isOver ? words : standing.state}</span>
      <span class="small muted num">{count(feed.total)} rows, {rate(feed.rate)} a second{feed.dropped > 0 && `, ${count(feed.dropped)} not shown`}</span>
      <div class="tools end">{children}</div>
    </div>
  );
}

