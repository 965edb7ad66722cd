// A new stream: its text is judged while it is written, its first rows can be seen, and it is written down or deployed at once.
import { useEffect, useState } from 'preact/hooks';
import { ask, Problem, useAsk, type Call } from '../api';
import { Errors, useOnce } from '../operations/decide';
import type { Engine, Source } from '../query/model';
import { change, go, leaving, place, to } from '../router';
import { columnsOf } from '../rows';
import { Sql } from '../sql';
import { useValidation, type Validation } from '../validate';
import { Act, CopyCurl, Empty, Failure, Shown, Table } from '../widgets';
import { shown } from '../table';
import { parse } from '../json';
import type { Stream } from './model';

export function Create() {
  const engines = useAsk<{ items: Engine[] }>('/api/engines');
  return (
    <section>
      <p class="small"><a href={to(['streams'])}>All streams</a></p>
      <div class="head"><h1>New stream</h1></div>
      <Shown of={engines} what="engines">{({ items }) => items.length === 0 ? <Empty>No engine is configured.</Empty> : <Form engines={items} />}</Shown>
    </section>
  );
}

/** The topic of a name, but for the part that is made of the stream's id. */
function topicOf(name: string): string {
  return `view_${name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '_').replaceAll(/^_+|_+$/g, '') || '…'}_…`;
}

function Form({ engines }: { engines: Engine[] }) {
  const first = place.peek();
  const [name, setName] = useState(first.hash.get('name') ?? '');
  const [text, setText] = useState(first.hash.get('sql') ?? '');
  const [engine, setEngine] = useState(first.query.get('engine') ?? (engines.find(({ isDefault }) => isDefault) ?? engines[0]!).engine);
  const [deploys, setDeploys] = useState(true);
  const [trouble, setTrouble] = useState<Problem | null>(null);
  const [saved, setSaved] = useState(false);
  const catalog = useAsk<{ items: Source[] }>('/api/catalog');
  const sources = catalog.data?.items.filter(({ engines }) => engines.includes(engine));
  const checked = useValidation('persistent', text, engine);
  useEffect(() => {
    const timer = window.setTimeout(() => {
      if (place.peek().parts[1] !== 'new') return;
      change({ engine });
      change({ name, sql: text.length > 4000 ? null : text }, { hash: true });
    }, 300);
    return () => window.clearTimeout(timer);
  }, [name, text, engine]);
  useEffect(() => {
    leaving.ask = text && !saved ? () => window.confirm('The stream is not written down yet. Leave all the same?') : null;
    return () => void (leaving.ask = null);
  }, [text, saved]);
  useEffect(() => {
    // An address that is put into the open page; what the page itself says there is no event.
    const pasted = () => {
      const { hash } = place.peek();
      const sql = hash.get('sql');
      if (sql === null || (leaving.ask && !leaving.ask())) return;
      setName(hash.get('name') ?? '');
      setText(sql);
    };
    window.addEventListener('hashchange', pasted);
    return () => window.removeEventListener('hashchange', pasted);
  }, []);
  const { run, busy, problem } = useOnce<Stream>(async (stream) => {
    leaving.ask = null;
    setSaved(true);
    if (deploys) {
      try {
        await ask(`/api/streams/${stream.id}/deploy?waitMs=0`, { method: 'POST', body: {} });
      } catch (error) {
        setTrouble(error as Problem);
        return;
      }
    }
    go(to(['streams', stream.id]));
  });
  const call: Call = { method: 'POST', body: { name: name.trim(), sqlScript: text, engine } };
  const faults = (problem?.body.statementErrors as Validation['errors'] | undefined) ?? checked.faults;
  const why = name.trim() === '' ? 'It needs a name.' : text.trim() === '' ? 'It needs a text.' : checked.found && !checked.found.valid ? 'The text cannot run as it is.' : '';
  return (
    <form class="sheet" onSubmit={(event) => {
      event.preventDefault();
      if (!why) void run('/api/streams', call);
    }}>
      <div class="beside">
        <label class="field"><span>Name</span>
          <input required maxLength={128} value={name} placeholder="HighValueOrders" aria-invalid={Boolean(problem?.of('name'))} onInput={(event) => setName(event.currentTarget.value)} />
          <span class="small muted">Fills the topic <code>{topicOf(name)}</code>, which keeps its name for good.</span>
        </label>
        <label class="field"><span>Engine</span>
          <select value={engine} onChange={(event) => setEngine(event.currentTarget.value)}>
            {engines.map((one) => <option key={one.engine} value={one.engine}>{one.engine}{one.isReachable ? '' : ', does not answer'}</option>)}
          </select>
          <span class="small muted">It stays on this engine.</span>
        </label>
      </div>
      {problem?.of('name') && <p class="error">{problem.of('name')}</p>}
      <div class="field"><span>Text: one SELECT</span><Sql text={text} set={setText} sources={sources} faults={faults} label="Text of the stream" hint="SELECT … FROM …" /></div>
      <Judged checked={checked} />
      <label class="check"><input type="checkbox" checked={deploys} onChange={(event) => setDeploys(event.currentTarget.checked)} /><span>Deploy it at once <span class="muted small">(else it is written down as a draft)</span></span></label>
      {problem && <Failure problem={problem}><Errors problem={problem} /></Failure>}
      {trouble && <Failure problem={trouble}><p>It is written down all the same, as a draft: <a href={to(['streams'], {}, { name })}>see it</a>.</p></Failure>}
      <p class="tools">
        <Act right="define" type="submit" class="primary" why={busy ? 'It is written down.' : why}>{busy ? 'Writing down …' : deploys ? 'Create and deploy' : 'Create'}</Act>
        <CopyCurl path="/api/streams" call={call} what="creating the stream" />
      </p>
      <FirstRows text={text} engine={engine} ready={Boolean(checked.found?.valid)} />
    </form>
  );
}

/** What a check found: the columns that come out of it, or that the engine was not asked. */
export function Judged({ checked }: { checked: ReturnType<typeof useValidation> }) {
  const { found, checking, problem } = checked;
  if (problem) return <Failure problem={problem} />;
  if (!found) return <p class="small muted" role="status">{checking ? 'Checking …' : ' '}</p>;
  if (!found.valid) return <p class="small muted" role="status">It cannot run as it is.</p>;
  return (
    <div class="small" role="status">
      <p class="muted">{found.checkedBy === 'engine' ? 'Can run, says the engine.' : `The gate has nothing against it; the engine has not judged${found.engineTrouble ? `: ${found.engineTrouble}` : ' yet'}.`}</p>
      {found.columns && <p class="mono">{found.columns.map(({ name, type }) => `${name} ${typeof type === 'string' ? type : JSON.stringify(type)}`).join(', ')} <span class="muted">{found.changes === 'upsert' ? '(rows replace each other by key)' : '(rows are added)'}</span></p>}
    </div>
  );
}

interface Trial {
  schema: string | null;
  rows: { row: { columns: unknown[] } }[];
  end: string;
  reason: string | null;
}

/** Its first rows, before it is a stream. */
function FirstRows({ text, engine, ready }: { text: string; engine: string; ready: boolean }) {
  const [state, setState] = useState<{ of: string; trial?: Trial; problem?: Problem; busy: boolean }>({ of: '', busy: false });
  const call: Call = { method: 'POST', body: { query: text, engine, rows: 10, seconds: 8 } };
  const look = async () => {
    if (state.busy) return;
    setState({ of: text, busy: true });
    try {
      const { text: answer } = await ask<Trial>('/api/test/query', call);
      setState({ of: text, trial: parse<Trial>(answer), busy: false });
    } catch (error) {
      setState({ of: text, problem: error as Problem, busy: false });
    }
  };
  const columns = columnsOf({ schema: state.trial?.schema ?? '' });
  return (
    <>
      <p class="tools">
        <Act right="define" onClick={() => void look()} why={state.busy ? 'It looks.' : ready ? '' : 'The text has to be one that can run.'} apart>{state.busy ? 'Looking, for 8 s at most …' : 'Show its first 10 rows'}</Act>
        <CopyCurl path="/api/test/query" call={call} what="the first rows" />
      </p>
      {state.problem && <Failure problem={state.problem} />}
      {state.trial && (state.trial.rows.length === 0 ? <Empty>No row within 8 s.</Empty> : (
        <Table label="First rows">
          <thead><tr>{columns.map(({ name }, column) => <th scope="col" key={column} class={typeof state.trial?.rows[0]?.row.columns[column] === 'number' ? 'num' : ''}>{name}</th>)}</tr></thead>
          <tbody>{state.trial.rows.map((row, index) => <tr key={index}>{row.row.columns.map((cell, column) => <td key={column} class={typeof cell === 'number' ? 'num' : ''}>{shown(cell)}</td>)}</tr>)}</tbody>
        </Table>
      ))}
      {state.trial && state.of !== text && <p class="small muted">These are rows of the text before it was changed.</p>}
    </>
  );
}
