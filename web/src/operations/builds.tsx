// Builds of a view: which there are, and what is done with them: rebuild, compare, cut over, roll back, verify, pause.
import { useState } from 'preact/hooks';
import { useAsk } from '../api';
import { Record } from '../record';
import { change, go, place, to } from '../router';
import { forbidden } from '../session';
import { span, Time } from '../time';
import { Act, bytes, CopyCurl, count, Empty, Failure, Pager, Shown, State, Table, Value } from '../widgets';
import { Decide, useOnce } from './decide';
import { keptFor, words, type Operation, type ViewOfBuilds } from './model';

type Wish = 'rebuild' | 'rollback' | 'verify' | 'pause' | 'resume';

const KINDS: { [state: string]: 'good' | 'wait' | 'bad' | 'idle' | 'on' } = { running: 'on', done: 'good', cancelled: 'idle', failed: 'bad', active: 'good', kept: 'idle', shadow: 'on', loading: 'on' };

export function Builds({ changed }: { changed: () => void }) {
  const views = useAsk<{ items: ViewOfBuilds[] }>('/ops/views', { every: 5000 });
  const cursor = place.value.query.get('cursor');
  const state = place.value.query.get('state') ?? '';
  const path = `/ops/operations?pageSize=20${state && `&state=${state}`}${cursor ? `&cursor=${cursor}` : ''}`;
  const operations = useAsk<{ items: Operation[] }>(path, { every: 2000 });
  const under = useAsk<{ items: Operation[] }>(state || cursor ? '/ops/operations?state=running&pageSize=1' : null, { every: 2000 });
  const running = (state || cursor ? under : operations).data?.items.find((one) => one.state === 'running');
  const again = () => {
    views.again();
    operations.again();
    changed();
  };
  return (
    <>
      <Shown of={views} what="builds">
        {({ items }) => items.length === 0 ? <Empty>No view runs here.</Empty> : <>{items.map((view) => <OneView key={view.view} view={view} running={running} again={again} />)}</>}
      </Shown>
      <div class="head section"><h2>Operations</h2><div class="tools">
        <label class="inline">State{' '}
          <select value={state} onChange={(event) => change({ state: event.currentTarget.value, cursor: null })}><option value="">any</option>{['running', 'done', 'cancelled', 'failed'].map((one) => <option key={one}>{one}</option>)}</select>
        </label>
        <CopyCurl path={path} what="operations" /></div></div>
      <Shown of={operations} what="operations">
        {({ items }) => items.length === 0 ? <Empty>{state ? 'No operation matches.' : 'Nothing was rebuilt, rolled back or verified yet.'}</Empty> : (
          <Table label="Operations">
            <thead><tr><th scope="col">Operation</th><th scope="col">State</th><th scope="col">Progress</th><th scope="col">Builds</th><th scope="col">Why</th><th scope="col">By</th><th scope="col">Begun</th></tr></thead>
            <tbody>
              {items.map((one) => (
                <tr key={one.id}>
                  <td><a href={to(['operations', 'builds', String(one.id)])}>{one.kind} {one.id}</a></td>
                  <td><State kind={KINDS[one.state] ?? 'idle'}>{one.state === 'running' ? words(one.phase) : one.state}</State></td>
                  <td><Progress of={one} /></td>
                  <td class="num">{one.fromBuild ?? '–'}{one.toBuild !== null && ` → ${one.toBuild}`}</td>
                  <td class="wide">{one.reason}</td>
                  <td>{one.actor}{one.onBehalfOf && ` for ${one.onBehalfOf}`}</td>
                  <td><Time at={one.startedAt} /></td>
                </tr>
              ))}
            </tbody>
          </Table>
        )}
      </Shown>
      <Pager asked={operations} go={(cursor) => change({ cursor }, { replace: false })} />
    </>
  );
}

function Progress({ of }: { of: Operation }) {
  const { records, total, percent, recordsPerSecond, etaSeconds } = of.progress;
  const isCounted = of.phase === 'loading' || of.kind === 'verify' || of.state === 'done';
  if (!isCounted) return <span class="muted">{of.state === 'running' ? (of.phase === 'ready' ? 'waits for a word' : `${words(of.phase)} …`) : '–'}</span>;
  if (total === null) return <span class="muted">{of.state === 'running' ? 'not known yet' : '–'}</span>;
  const what = of.kind === 'verify' ? 'keys' : 'records';
  return (
    <span class="num">
      {of.state === 'running' && <progress max={100} value={percent ?? 0} aria-label={`Progress of operation ${of.id}`} />} {count(records)} of {count(total)} {what}
      {recordsPerSecond !== null && <span class="muted"> · {count(recordsPerSecond)}/s</span>}
      {etaSeconds !== null && <span class="muted"> · {span(etaSeconds)} left</span>}
    </span>
  );
}

function OneView({ view, running, again }: { view: ViewOfBuilds; running: Operation | undefined; again: () => void }) {
  const [wish, setWish] = useState<Wish | null>(null);
  const busy = running ? `Operation ${running.id} is under way.` : '';
  const none = view.builds.some((build) => build.state === 'kept') ? '' : 'No build is kept to go back to.';
  const reason = forbidden('decide') || busy || none;
  return (
    <>
      <div class="head">
        <h2>{view.view}</h2>
        <div class="tools">
          <span class="reason" aria-hidden="true">{reason}</span>
          <Act right="decide" apart onClick={() => setWish('rebuild')} why={busy}>Rebuild …</Act>
          <Act right="decide" apart onClick={() => setWish('verify')} why={busy}>Verify …</Act>
          <Act right="decide" apart onClick={() => setWish('rollback')} why={busy || none}>Roll back …</Act>
          <Act right="decide" apart onClick={() => setWish(view.paused ? 'resume' : 'pause')}>{view.paused ? 'Resume …' : 'Pause …'}</Act>
        </div>
      </div>
      {view.standing && <div class="note"><p><strong>{view.standing.detail}</strong></p></div>}
      {view.paused && <div class="note"><p><strong>Paused by {view.paused.actor}: {view.paused.reason}.</strong> Since <Time at={view.paused.since} />; nothing is applied until it is resumed, reads go on.</p></div>}
      <Table label={`Builds of ${view.view}`}>
        <thead><tr><th scope="col">Build</th><th scope="col">State</th><th scope="col" class="num">Version</th><th scope="col" class="num">Records</th><th scope="col" class="num">Rows, about</th><th scope="col" class="num">Size</th><th scope="col">Made</th><th scope="col">Kept until</th></tr></thead>
        <tbody>
          {view.builds.map((build) => (
            <tr key={build.build}>
              <td>{build.build}</td><td><State kind={KINDS[build.state] ?? 'idle'}>{build.state}{build.active && ', readers read it'}</State></td><td class="num">{build.projectionVersion}</td>
              <td class="num">{count(build.records)}</td><td class="num">{count(build.rows)}</td><td class="num">{bytes(build.bytes)}</td><td><Time at={build.createdAt} /></td><td>{build.keptUntil ? <Time at={build.keptUntil} /> : <Value of={null} />}</td>
            </tr>
          ))}
        </tbody>
      </Table>
      {view.leftovers.map((left) => <p class="small muted" key={left.build}>Left over, {bytes(left.bytes)}: {left.detail}</p>)}
      {wish && <Wanted wish={wish} view={view.view} close={() => setWish(null)} again={again} />}
    </>
  );
}

function Wanted({ wish, view, close, again }: { wish: Wish; view: string; close: () => void; again: () => void }) {
  const [manual, setManual] = useState(true);
  const [hours, setHours] = useState('24');
  const [from, setFrom] = useState('ledger');
  const [scope, setScope] = useState('all');
  const begun = (operation: Operation) => {
    again();
    go(to(['operations', 'builds', String(operation.id)]));
  };
  const keep = (
    <label class="field"><span>Hours that the build which readers leave is kept and fed</span>
      <input type="number" required min={0} max={8760} step={1} value={hours} onInput={(event) => setHours(event.currentTarget.value)} /></label>
  );
  if (wish === 'rebuild') {
    return (
      <Decide<Operation> title={`Rebuild ${view}`} path="/ops/views/rebuild" verb="Rebuild" close={close} done={begun} body={{ view, cutover: manual ? 'manual' : 'auto', ...keptFor(hours) }}
        effect={<p>A new build is made from the whole log beside the old one, and compared with it. Readers go on reading the old one until they are switched.</p>}
        fields={<>
          <label class="check"><input type="checkbox" checked={manual} onChange={(event) => setManual(event.currentTarget.checked)} /> <span>Wait for my word before readers are switched</span></label>
          {keep}
        </>} />
    );
  }
  if (wish === 'rollback') {
    return <Decide<Operation> title={`Roll ${view} back`} path={`/ops/views/${encodeURIComponent(view)}/rollback`} verb="Roll back" danger close={close} done={begun} body={{ ...keptFor(hours) }}
      effect={<p>Readers go back to the build that they left last. It was fed all the time and shows every event that came since.</p>} fields={keep} />;
  }
  if (wish === 'verify') {
    return (
      <Decide<Operation> title={`Verify ${view}`} path="/ops/verify" verb="Verify" close={close} done={begun} body={{ view, from, ...(scope === 'all' ? { all: true } : { sample: Number(scope) }) }}
        effect={<p>Orders are folded again and compared with their rows, while events arrive. Nothing is changed.</p>}
        fields={<>
          <label class="field"><span>By what it is told what rows should be</span>
            <select value={from} onChange={(event) => setFrom(event.currentTarget.value)}><option value="ledger">the ledger</option><option value="log">the log</option><option value="both">both</option></select></label>
          <label class="field"><span>How many orders</span>
            <select value={scope} onChange={(event) => setScope(event.currentTarget.value)}><option value="all">all</option><option value="100">100 of them</option><option value="1000">1000 of them</option></select></label>
        </>} />
    );
  }
  return <Decide title={wish === 'pause' ? `Pause ${view}` : `Resume ${view}`} path={`/ops/views/${encodeURIComponent(view)}/${wish}`} verb={wish === 'pause' ? 'Pause' : 'Resume'} danger={wish === 'pause'} close={close} done={again}
    effect={<p>{wish === 'pause' ? 'Nothing is applied any more, in no process and to no build, until it is resumed. Reads go on.' : 'Events are applied again, from where it stood.'}</p>} />;
}

interface Difference {
  key: string;
  found: string;
  columns: { [name: string]: { old: unknown; new: unknown } };
}

export function OperationView({ id, changed }: { id: string; changed: () => void }) {
  const path = `/ops/operations/${encodeURIComponent(id)}`;
  const [over, setOver] = useState(false);
  const asked = useAsk<Operation>(path, { every: over ? 0 : 1000 });
  if (asked.data && (asked.data.state !== 'running') !== over) setOver(asked.data.state !== 'running');
  const cursor = place.value.query.get('cursor');
  const differences = useAsk<{ items: Difference[]; total: number | null; kept: number }>(`${path}/differences?pageSize=50${cursor ? `&cursor=${cursor}` : ''}`, { every: over ? 0 : 3000 });
  const call = useOnce<Operation>(() => {
    asked.again();
    changed();
  });
  return (
    <>
      <div class="head">
        <h2>{asked.data ? `${asked.data.kind[0]!.toUpperCase()}${asked.data.kind.slice(1)} ${id}` : `Operation ${id}`}</h2>
        {asked.data && <State kind={KINDS[asked.data.state] ?? 'idle'}>{asked.data.state === 'running' ? words(asked.data.phase) : asked.data.state}</State>}
        <a href={to(['operations', 'builds'])}>All builds</a>
        <div class="tools"><CopyCurl path={path} what="this operation" /></div>
      </div>
      <Shown of={asked} what="the operation">
        {(one) => (
          <>
            {one.waitingFor && <div class="note" role="status"><p><strong>It waits for a word.</strong> {one.waitingFor.startsWith('POST ') ? `Readers go on with build ${one.fromBuild} until somebody switches them.` : one.waitingFor}</p></div>}
            {one.error && <div class="failure" role="alert"><p><strong>{one.error.detail ?? 'It failed.'}</strong> {one.error.nextStep}</p></div>}
            {!one.waitingFor && <p><Progress of={one} /></p>}
            <div class="tools">
              {one.kind === 'rebuild' && <Act right="decide" class="primary" why={one.state !== 'running' ? 'It is over.' : one.phase === 'ready' ? '' : 'The new build is not ready yet.'} onClick={() => void call.run(`${path}/cutover`, { method: 'POST' })}>Switch readers to build {one.toBuild}</Act>}
              <Act right="decide" class="danger" why={one.state === 'running' ? '' : 'It is over.'} onClick={() => void call.run(`${path}/cancel`, { method: 'POST' })}>Call it off</Act>
            </div>
            {call.problem && <Failure problem={call.problem} />}
            <dl class="facts">
              <div><dt>Builds</dt><dd>{one.fromBuild ?? '–'}{one.toBuild !== null && ` → ${one.toBuild}`}</dd></div>
              <div><dt>Why</dt><dd>{one.reason}</dd></div>
              <div><dt>By</dt><dd>{one.actor}{one.onBehalfOf && ` for ${one.onBehalfOf}`}</dd></div>
              <div><dt>Begun</dt><dd><Time at={one.startedAt} /></dd></div>
              <div><dt>Over</dt><dd>{one.finishedAt ? <Time at={one.finishedAt} /> : <span class="nothing">not yet</span>}</dd></div>
            </dl>
            <h3>Phases</h3>
            <Table label="Phases"><thead><tr><th scope="col">Phase</th><th scope="col">Begun</th></tr></thead><tbody>{one.phases.map((phase) => <tr key={phase.phase}><td>{words(phase.phase)}</td><td><Time at={phase.at} /></td></tr>)}</tbody></Table>
            {one.comparison && (<><h3>What the comparison found</h3><Found comparison={one.comparison} /></>)}
          </>
        )}
      </Shown>
      {asked.data?.kind !== 'rollback' && <h3>Orders that differ</h3>}
      {asked.data?.kind !== 'rollback' && <Shown of={differences} what="differences">
        {({ items, total, kept }) => items.length === 0 ? <Empty>{total === null ? 'Nothing has been compared yet.' : 'No order differs.'}</Empty> : (
          <>
            <p class="muted">{total === null ? `${count(kept)} so far` : `${count(total)} differ${kept < total ? `; what differs is kept of ${count(kept)}` : ''}`}</p>
            <Table label="Orders that differ">
              <thead><tr><th scope="col">Order</th><th scope="col">Found</th><th scope="col">Column</th><th scope="col">Old</th><th scope="col">New</th></tr></thead>
              <tbody>
                {items.flatMap((one) => Object.entries(one.columns).map(([name, values], index) => (
                  <tr key={`${one.key} ${name}`}>
                    <td class="mono">{index === 0 && <a href={to(['orders', one.key])}>{one.key}</a>}</td><td>{index === 0 && words(one.found)}</td><td class="mono">{name}</td>
                    <td class="mono wide">{told(values.old)}</td><td class="mono wide">{told(values.new)}</td>
                  </tr>
                )))}
              </tbody>
            </Table>
          </>
        )}
      </Shown>}
      <Pager asked={differences} go={(cursor) => change({ cursor }, { replace: false })} />
    </>
  );
}

const FOUND: { [name: string]: string } = { columns: 'columns that differ', onlyNew: 'only in the new', onlyOld: 'only in the old', explainedBy: 'explained by' };

/** Its numbers and columns as facts, and all of it as JSON. */
function Found({ comparison }: { comparison: { [name: string]: unknown } }) {
  const fact = (value: unknown): string => {
    if (value === null || value === undefined) return '–';
    if (typeof value === 'number') return count(value);
    if (typeof value === 'object') return Object.entries(value).map(([column, orders]) => `${column} in ${fact(orders)}`).join(', ') || 'none';
    return String(value);
  };
  return (
    <>
      <dl class="facts">{Object.entries(comparison).filter(([, value]) => !Array.isArray(value)).map(([name, value]) => <div key={name}><dt>{FOUND[name] ?? name}</dt><dd>{fact(value)}</dd></div>)}</dl>
      <details class="explain"><summary>As JSON</summary><Record text={JSON.stringify(comparison)} label="the comparison" /></details>
    </>
  );
}

function told(value: unknown) {
  if (value === null || value === undefined) return <Value of={null} />;
  return typeof value === 'string' ? <Value of={value} /> : JSON.stringify(value);
}
