// Query: SQL on an engine, its rows while they come, and its end.
import { useComputed, useSignalEffect } from '@preact/signals';
import { useEffect, useState } from 'preact/hooks';
import { root, useAsk } from '../api';
import { hold, invoke } from '../hub';
import { groupedBy } from '../query/grouped';
import { active, faultsIn, nameOf, newTab, packed, past, remember, Run, tabs, unpacked, type Engine, type Source, type Tab } from '../query/model';
import { NoManager } from '../query/none';
import { SavedQueries } from '../query/saved';
import { change, place, to } from '../router';
import { session } from '../session';
import { Sql } from '../sql';
import { span } from '../time';
import { useValidation } from '../validate';
import { Watch, type View } from '../watch';
import { Act, bytes, Copy, CopyCurl, count, Empty, Failure, rate, Shown, State, Toolbar } from '../widgets';

/** An address is for sending: longer texts stand in it packed. */
const LONGEST_IN_ADDRESS = 4000;

export default function Query() {
  const engines = useAsk<{ items: Engine[] }>('/api/engines', { every: 30_000 });
  const catalog = useAsk<{ items: Source[]; missing: string[] }>(engines.data ? '/api/catalog' : null, { every: 60_000 });
  useEffect(() => {
    void take();
    const release = hold();
    // An address that is put into the open page; what the page itself says there is no event.
    const pasted = () => void take();
    window.addEventListener('hashchange', pasted);
    // Who leaves stops what runs: nobody would read it.
    return () => {
      window.removeEventListener('hashchange', pasted);
      for (const tab of tabs.value) void tab.run.value?.stop();
      release();
    };
  }, []);
  useSignalEffect(() => {
    const tab = active.value;
    const [text, engine, fromBeginning, view, find] = [tab.text.value, tab.engine.value, tab.fromBeginning.value, tab.view.value, tab.find.value];
    const timer = window.setTimeout(async () => {
      const long = text.length > LONGEST_IN_ADDRESS ? await packed(text) : null;
      if (place.peek().parts[0] !== 'query' || active.peek() !== tab || tab.text.peek() !== text) return;
      change({ engine, from: fromBeginning ? null : 'now', view: view === 'changes' ? null : view });
      change({ sql: long === null ? text : null, packed: long, find }, { hash: true });
    }, 250);
    return () => window.clearTimeout(timer);
  });
  if (engines.error?.code === 'manager_not_enabled') {
    return <section><h1>Query</h1><NoManager /></section>;
  }
  const tab = active.value;
  return (
    <section class="query">
      <div class="head"><h1>Query</h1></div>
      <Tabs />
      <Shown of={engines} what="engines">
        {({ items }) => items.length === 0 ? <Empty>No engine is configured.</Empty> : <One key={tab.id} tab={tab} engines={items} sources={catalog.data?.items ?? NONE} missing={catalog.data?.missing ?? NONE} />}
      </Shown>
    </section>
  );
}

const NONE: never[] = [];

/** What the address says, in the tab that has it, or in one of its own. */
async function take() {
  const { query, hash } = place.peek();
  const long = hash.get('packed');
  const text = hash.get('sql') ?? (long && (await unpacked(long)));
  if (text === null) return;
  const view: View = query.get('view') === 'current' ? 'current' : 'changes';
  const from = { text, engine: query.get('engine') ?? '', fromBeginning: query.get('from') !== 'now', view, find: hash.get('find') ?? '' };
  const known = tabs.value.find((tab) => tab.text.value === text && (tab.engine.value === from.engine || !tab.engine.value || !from.engine));
  if (known) {
    if (from.engine) known.engine.value = from.engine;
    known.fromBeginning.value = from.fromBeginning;
    known.view.value = view;
    known.find.value = from.find;
    active.value = known;
    return;
  }
  const tab = newTab(from);
  const empty = tabs.value.find((tab) => tab.text.value === '');
  tabs.value = empty ? tabs.value.map((one) => (one === empty ? tab : one)) : [...tabs.value, tab];
  active.value = tab;
}

function Tabs() {
  const close = (tab: Tab) => {
    void tab.run.value?.stop();
    const at = tabs.value.indexOf(tab);
    const rest = tabs.value.filter((one) => one !== tab);
    tabs.value = rest.length > 0 ? rest : [newTab()];
    if (active.value === tab) active.value = tabs.value[Math.min(at, tabs.value.length - 1)]!;
  };
  return (
    <div class="tabs" role="group" aria-label="Queries">
      {tabs.value.map((tab) => (
        <span class="tab" key={tab.id}>
          <button type="button" class="tab-name" aria-current={tab === active.value} onClick={() => (active.value = tab)}>
            {nameOf(tab.text.value)}<Dot run={tab.run.value} />
          </button>
          {(tabs.value.length > 1 || tab.text.value) && <button type="button" class="tab-close" aria-label={`Close ${nameOf(tab.text.value)}`} onClick={() => close(tab)}>×</button>}
        </span>
      ))}
      <button type="button" class="quiet" onClick={() => {
        const tab = newTab({ engine: active.value.engine.value });
        tabs.value = [...tabs.value, tab];
        active.value = tab;
      }}>New tab</button>
    </div>
  );
}

function Dot({ run }: { run: Run | null }) {
  if (!run || run.state.value === 'ended') return null;
  return <span class="state on" title="runs"><span class="unseen">, runs</span></span>;
}

interface OneProps {
  tab: Tab;
  engines: Engine[];
  sources: Source[];
  missing: string[];
}

function One({ tab, engines, sources, missing }: OneProps) {
  const text = tab.text.value;
  const engine = tab.engine.value || (engines.find(({ isDefault }) => isDefault) ?? engines[0]!).engine;
  const run = tab.run.value;
  const state = run?.state.value;
  const isBusy = state !== undefined && state !== 'ended';
  const [waits, setWaits] = useState(false);
  const mine = useComputed(() => session.value);
  void mine.value;
  const checked = useValidation('adhoc', text, engine, !isBusy);
  const usable = sources.filter(({ engines }) => engines.includes(engine));
  const refused = run && state === 'ended' && run.sql === text ? faultsIn(run.end.value?.more ?? '') : NONE;
  const begin = async () => {
    if (isBusy || waits || text.trim() === '') return;
    setWaits(true);
    const found = await checked.now();
    setWaits(false);
    // Another text was written meanwhile, or it cannot run.
    if (found === undefined || found?.valid === false) return;
    // The page was left meanwhile, or the tab closed: nothing would stop what begins now.
    if (place.peek().parts[0] !== 'query' || !tabs.peek().includes(tab)) return;
    remember(text);
    tab.run.value = new Run(text, engine, tab.fromBeginning.value);
  };
  const first = { query: text, engine, fromBeginning: tab.fromBeginning.value };
  return (
    <>
      <Sql text={text} set={(now) => (tab.text.value = now)} sources={usable} faults={checked.faults.length > 0 ? checked.faults : refused} run={() => void begin()} label="SQL" hint="SELECT … FROM …" />
      {checked.problem && <Failure problem={checked.problem} />}
      <div class="bar">
        <Toolbar label="The query" main>
        <Act right="define" class="primary" apart onClick={() => void begin()} why={isBusy ? 'It runs.' : waits ? 'It is checked.' : text.trim() === '' ? 'There is no text to run.' : ''}>
          {waits ? 'Checking …' : run && state === 'ended' && run.sql === text ? 'Run again' : 'Run'}
        </Act>
        <button type="button" aria-disabled={state !== 'running' && state !== 'starting'} onClick={() => void run?.stop()}>{state === 'stopping' ? 'Stopping …' : 'Stop'}</button>
        <button type="button" aria-disabled={!isBusy && !run?.feed.paused.value} aria-pressed={run?.feed.paused.value ?? false} onClick={() => run && (isBusy || run.feed.paused.value) && run.feed.pause(!run.feed.paused.value)}>{run?.feed.paused.value ? 'Resume' : 'Pause'}</button>
        </Toolbar>
        <label class="inline">Engine{' '}
          <select value={engine} disabled={isBusy} onChange={(event) => (tab.engine.value = event.currentTarget.value)}>
            {engines.map((one) => <option key={one.engine} value={one.engine}>{one.engine}{one.isReachable ? '' : ', does not answer'}</option>)}
          </select>
        </label>
        <label class="inline">Begin with{' '}
          <select value={tab.fromBeginning.value ? 'all' : 'now'} disabled={isBusy} onChange={(event) => (tab.fromBeginning.value = event.currentTarget.value === 'all')}>
            <option value="all">what is there</option>
            <option value="now">what comes</option>
          </select>
        </label>
        <Toolbar label="More of the query" class="tools end">
          <a class="button quiet" href={to(['streams', 'new'], { engine }, { sql: text })}>Make a stream of this</a>
          <SavedQueries tab={tab} engine={engine} />
          <History use={(sql) => (tab.text.value = sql)} />
          <CopyCurl path="/api/test/query" call={{ method: 'POST', body: first }} what="the first rows of the query" />
          <Copy label="Copy as script" text={() => script(text, engine, tab.fromBeginning.value)} what="the query" />
        </Toolbar>
      </div>
      <p class="small muted checked" role="status">
        {checked.checking ? 'Checking …' : checked.found?.valid ? `Can run, says the ${checked.found.checkedBy === 'engine' ? `engine${checked.found.changes ? `; rows ${checked.found.changes === 'append' ? 'are added' : 'are replaced'}` : ''}` : 'gate; the engine was not asked'}` : checked.found ? `Cannot run: ${checked.found.errors.length === 1 ? '1 fault' : `${checked.found.errors.length} faults`}` : ''}
      </p>
      <EngineTrouble engine={engines.find((one) => one.engine === engine)} />
      {checked.found?.engineTrouble && <p class="small muted">{checked.found.engineTrouble}</p>}
      {!isBusy && <Limits />}
      {checked.found?.plan && (
        <details class="explain"><summary>How the engine would do it</summary><pre tabIndex={0} aria-label="Plan of the engine">{checked.found.plan}</pre></details>
      )}
      {run ? <Result tab={tab} run={run} stale={run.sql !== text} /> : <Examples engine={engine} sources={usable} missing={missing} use={(sql) => (tab.text.value = sql)} />}
    </>
  );
}

function EngineTrouble({ engine }: { engine: Engine | undefined }) {
  if (!engine || engine.isReachable) return null;
  return <p class="error">{engine.engine} does not answer: {engine.trouble ?? 'no reason is known'}.</p>;
}

interface AllLimits {
  userActiveAdHocQueries: number;
  userMaxAdHocQueries: number;
  globalActiveAdHocQueries: number;
  globalMaxAdHocQueries: number;
  adHocMaxSeconds: number;
  adHocMaxRows: number;
  adHocMaxBytes: number;
}

/** What a run may take, before it begins. */
function Limits() {
  const [limits, setLimits] = useState<AllLimits | null>(null);
  const [trouble, setTrouble] = useState('');
  useEffect(() => {
    let gone = false;
    invoke<AllLimits>('GetQueryLimits').then((now) => gone || (setLimits(now), setTrouble('')), (error: unknown) => gone || setTrouble(error instanceof Error ? error.message : String(error)));
    return () => void (gone = true);
  }, []);
  if (trouble) return <p class="small muted">The limits could not be asked for: {trouble}</p>;
  if (!limits) return <p class="small muted">&nbsp;</p>;
  return (
    <p class="small muted">
      A query ends after {span(limits.adHocMaxSeconds)}, {count(limits.adHocMaxRows)} rows or {bytes(limits.adHocMaxBytes)}, whatever comes first.
      You run {limits.userActiveAdHocQueries} of {limits.userMaxAdHocQueries}, all together {limits.globalActiveAdHocQueries} of {limits.globalMaxAdHocQueries}.
    </p>
  );
}

function History({ use }: { use: (sql: string) => void }) {
  const all = past();
  if (all.length === 0) return null;
  return (
    <label class="choice">
      <span class="unseen">Queries that ran in this browser</span>
      <select class="history" value="" onChange={(event) => {
        const sql = past()[Number(event.currentTarget.value)];
        event.currentTarget.value = '';
        if (sql) use(sql);
      }}>
        <option value="">History</option>
        {all.map((sql, index) => <option key={sql} value={index}>{sql.replaceAll(/\s+/g, ' ').slice(0, 80)}</option>)}
      </select>
    </label>
  );
}

// A table whose one key has the name of one of the source's columns, however that is written: `orderId`, `order_id`.
function lookup(source: Source, sources: Source[]): string[] {
  const plain = (name: string) => name.toLowerCase().replaceAll('_', '');
  for (const { name, columns, table } of sources) {
    const key = table?.key.length === 1 ? table.key[0] : undefined;
    const by = key && source.columns.find((column) => plain(column.name) === plain(key));
    const more = by && columns.find((column) => column.name !== key && column.name !== by.name);
    if (more) return [`SELECT s.${by.name}, t.${more.name} FROM ${source.name} s LEFT JOIN ${name} t ON s.${by.name} = t.${key}`];
  }
  return [];
}

// Texts that run as they are: the embedded engine counts by a window only.
function examples(source: Source, engine: string, sources: Source[]): string[] {
  const all = `SELECT * FROM ${source.name}`;
  const grouped = source.columns.find(({ type }) => /string|varchar/i.test(type)) ?? source.columns[0];
  if (!grouped) return [all];
  if (engine !== 'embedded') return [all, `SELECT ${grouped.name}, COUNT(*) AS N FROM ${source.name} GROUP BY ${grouped.name}`];
  const time = source.columns.find(({ type }) => /^timestamp/i.test(type))?.name ?? '_timestamp';
  const minute = `tumble(${time}, INTERVAL '1 minute')`;
  return [all, `SELECT ${minute} AS minute, ${grouped.name}, COUNT(*) AS n FROM ${source.name} GROUP BY ${minute}, ${grouped.name}`, ...lookup(source, sources)];
}

function Examples({ sources, engine, missing, use }: { sources: Source[]; engine: string; missing: string[]; use: (sql: string) => void }) {
  // The embedded engine joins tables, and follows none alone.
  const source = engine === 'embedded' ? sources.find(({ table }) => !table) : sources[0];
  return (
    <div class="examples">
      {sources.length > 0 ? (
        <>
          {source && (
            <>
              <h2>Examples</h2>
              <ul class="plain">
                {examples(source, engine, sources).map((sql) => (
                  <li key={sql}><button type="button" class="quiet code" onClick={() => use(sql)}>{sql}</button></li>
                ))}
              </ul>
            </>
          )}
          <h2>What can be selected from</h2>
          <dl class="sources">
            {sources.slice(0, 20).map(({ name, topic, columns, table, origin }) => (
              <div key={name}>
                <dt>
                  <code>{name}</code>{' '}
                  <span class="small muted">
                    {topic ? <>topic <a href={to(['topics', topic, 'live'])}>{topic}</a>, {origin}</> : 'a view of this service'}
                    {table && `, joined by ${table.key.join(', ')}`}
                  </span>
                </dt>
                <dd class="small mono">{columns.map(({ name, type }) => `${name} ${type}`).join(', ')}</dd>
              </div>
            ))}
          </dl>
          {sources.length > 20 && <p class="small muted">The first 20 of {sources.length}; the editor completes all.</p>}
        </>
      ) : <Empty>Nothing can be selected from yet: declare a topic as a source with <code>PUT /api/catalog/&#123;name&#125;</code>, or register its schema.</Empty>}
      {missing.map((why) => <p class="small muted" key={why}>{why}</p>)}
    </div>
  );
}

function Result({ tab, run, stale }: { tab: Tab; run: Run; stale: boolean }) {
  const state = run.state.value;
  return (
    <div class="result">
      <Progress run={run} />
      {stale && (
        <p class="small note"><strong>These rows are of another text:</strong> <code>{run.sql}</code>{' '}
          <button type="button" class="quiet" onClick={() => (tab.text.value = run.sql)}>Take it back</button>
        </p>
      )}
      <Watch key={run.began} feed={run.feed} label="Rows of the query" name="query" live={state !== 'ended'} view={tab.view.value} setView={(view) => (tab.view.value = view)}
        keyed={groupedBy(run.sql)} find={tab.find.value} setFind={(find) => (tab.find.value = find)}
        empty={state === 'ended' ? 'No row came.' : 'No row yet. A query over what comes waits for what comes.'} />
    </div>
  );
}

/** How it stands, told once a second at most. */
function Progress({ run }: { run: Run }) {
  void run.feed.drawn.value;
  const [, setTurn] = useState(0);
  const state = run.state.value;
  useEffect(() => {
    if (state === 'ended') return undefined;
    const timer = window.setInterval(() => setTurn((turn) => turn + 1), 1000);
    return () => window.clearInterval(timer);
  }, [state]);
  const end = run.end.value;
  const took = `${count(run.feed.total)} rows, ${span(run.seconds)}`;
  const kind = { starting: 'wait', running: 'on', stopping: 'wait', ended: end?.kind ?? 'good' }[state] as 'on';
  return (
    <div class="progress">
      <State kind={kind}>
        {state === 'starting' && `Starting on ${run.engine} …`}
        {state === 'running' && (run.feed.paused.value ? `Paused, ${count(run.feed.waiting)} new` : 'Running')}
        {state === 'stopping' && 'Stopping …'}
        {state === 'ended' && `${end?.word ?? 'Ended'}, ${took}`}
      </State>
      {state !== 'ended' && <span class="small muted num">{took}, {rate(run.feed.rate)} rows/s, on {run.engine}</span>}
      {state === 'ended' && end?.more && <span class="small">{end.more}</span>}
      <span class="unseen" role="status">{state === 'ended' ? `${end?.word ?? 'Ended'}, ${took}` : state}</span>
    </div>
  );
}

function script(sql: string, engine: string, fromBeginning: boolean): string {
  return `// npm install @microsoft/signalr; node query.mjs
import { HubConnectionBuilder } from '@microsoft/signalr';
const connection = new HubConnectionBuilder().withUrl(${JSON.stringify(new URL('hub/stream', root).href)}).build();
await connection.start();
connection.stream('ExecuteAdHoc', ${JSON.stringify(sql)}, ${JSON.stringify(engine)}, ${fromBeginning}).subscribe({
  next: (line) => console.log(line),
  complete: () => connection.stop(),
  error: (error) => { console.error(error.message); void connection.stop(); },
});
`;
}
