// Dialogs that change something: why is asked for, what will happen is told first, and a double click has one effect.
import type { ComponentChildren } from 'preact';
import { useRef, useState } from 'preact/hooks';
import { ask, newKey, problemFrom, type Call, type Problem } from '../api';
import { kept } from '../kept';
import { place } from '../router';
import { session } from '../session';
import { absolute, zoneName } from '../time';
import { CopyCurl, count, Dialog, Failure } from '../widgets';
import { agesNow } from './ages';
import { words } from './model';

const me = kept('actor', '');

interface Once {
  run: (path: string, call: Call) => Promise<void>;
  busy: boolean;
  problem: Problem | null;
  /** Says no more what went wrong. */
  forget: () => void;
}

/** Makes a call once, however often it is asked for. */
export function useOnce<T>(done: (data: T) => void, failed?: (problem: Problem) => void): Once {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const intent = useRef({ what: '', key: '' });
  const run = async (path: string, call: Call) => {
    if (busy) return;
    const what = JSON.stringify([path, call]);
    if (intent.current.what !== what) intent.current = { what, key: newKey() };
    setBusy(true);
    setProblem(null);
    try {
      done((await ask<T>(path, { ...call, key: intent.current.key })).data);
    } catch (error) {
      const problem = problemFrom(error);
      setProblem(problem);
      failed?.(problem);
      // It was answered: what is asked for next is another intent.
      if (problem.status > 0 && problem.status < 500) intent.current = { what: '', key: '' };
    } finally {
      setBusy(false);
    }
  };
  return { run, busy, problem, forget: () => setProblem(null) };
}

/** Why, and where nobody signs in, who. */
export function Why({ reason, set, problem, label = 'Why' }: { reason: string; set: (reason: string) => void; problem: Problem | null; label?: string }) {
  return (
    <>
      <label class="field">
        <span>{label}</span>
        <input required maxLength={500} value={reason} placeholder="for those who ask later" onInput={(event) => set(event.currentTarget.value)} aria-invalid={Boolean(problem?.of('reason'))} />
      </label>
      {problem?.of('reason') && <p class="error">{problem.of('reason')}</p>}
      {!session.value?.accessControl && (
        <label class="field">
          <span>Who you are <span class="muted small">(nobody signs in here)</span></span>
          <input maxLength={256} value={me.value} placeholder="anonymous" onInput={(event) => (me.value = event.currentTarget.value)} />
        </label>
      )}
    </>
  );
}

export function actor(): { actor?: string } {
  return !session.value?.accessControl && me.value.trim() ? { actor: me.value.trim() } : {};
}

interface DecideProps<T> {
  title: string;
  path: string;
  /** What happens, in a sentence. */
  effect: ComponentChildren;
  verb: string;
  danger?: boolean;
  body?: { [name: string]: unknown };
  fields?: ComponentChildren;
  close: () => void;
  done: (data: T) => void;
}

/** One call with a reason. */
export function Decide<T>({ title, path, effect, verb, danger = false, body = {}, fields, close, done }: DecideProps<T>) {
  const [reason, setReason] = useState('');
  const { run, busy, problem } = useOnce<T>((data) => {
    close();
    done(data);
  });
  const call: Call = { method: 'POST', body: { ...body, reason, ...actor() } };
  return (
    <Dialog title={title} close={close}>
      <form onSubmit={(event) => {
        event.preventDefault();
        void run(path, call);
      }}>
        <div>{effect}</div>
        {fields}
        <Why reason={reason} set={setReason} problem={problem} />
        {problem && <Failure problem={problem}><Errors problem={problem} /></Failure>}
        <p class="tools">
          <button type="submit" class={danger ? 'danger' : 'primary'} aria-disabled={busy}>{busy ? 'Asking …' : verb}</button>
          <CopyCurl path={path} call={call} />
        </p>
      </form>
    </Dialog>
  );
}

/** Every fault of the body that was named. */
export function Errors({ problem }: { problem: Problem }) {
  const errors = problem.body.errors as { parameter: string; detail: string }[] | undefined;
  if (!errors) return null;
  return <ul>{errors.map((error) => <li key={error.parameter}><code>{error.parameter}</code>: {error.detail}</li>)}</ul>;
}

interface Bulk {
  dryRun: boolean;
  matched: number;
  more: boolean;
  possible: number;
  decided: number;
  sample: unknown[];
  impossible: number;
  impossibleSample: { key: string | null; deadLetterId?: number; code: string; detail: string }[];
}

/** What is filtered by: "status open, topic orders.events". */
function inWords(filter: object): string {
  const { query } = place.value;
  const times = { from: query.get('from'), before: query.get('to') };
  const all = Object.entries({ ...filter, ...times }).filter(([, value]) => value !== null).map(([name, value]) => {
    if (name in times) return `${name} ${absolute(Date.parse(String(value)))} ${zoneName(Date.parse(String(value)))}`;
    if (name === 'proven') return value ? 'missing event proven not to be in the log' : 'missing event perhaps still in the log';
    return `${name} ${Array.isArray(value) ? value.map((one) => words(String(one))).join(' or ') : String(value)}`;
  });
  return all.join(', ') || 'anything: there is no filter';
}

/** A decision by filter, and by the times in the address: told first, then made only of what was told. */
export function DecideMany({ title, path, filter, what, verb, close, done }: { title: string; path: string; filter: object; what: string; verb: string; close: () => void; done: () => void }) {
  const [reason, setReason] = useState('');
  const [told, setTold] = useState<Bulk | null>(null);
  const [made, setMade] = useState<Bulk | null>(null);
  // Ages are counted from the moment of the call.
  const call = (): Call => ({ method: 'POST', body: { filter: { ...filter, ...agesNow() }, reason, ...actor(), ...(told ? { expect: told.matched } : {}) } });
  const tell = useOnce<Bulk>(setTold);
  const make = useOnce<Bulk>((data) => {
    setMade(data);
    done();
  }, ({ code }) => {
    // What was told is so no more: it is told anew, and the reason stays.
    if (code === 'count_changed') setTold(null);
  });
  const problem = make.problem ?? tell.problem;
  return (
    <Dialog title={title} close={close}>
      {made ? (
        <>
          <p role="status"><strong>{count(made.decided)} {what} decided.</strong> It takes effect within about a second.{made.impossible > 0 && ` ${count(made.impossible)} could not be.`}</p>
          <p><button type="button" class="primary" onClick={close}>Done</button></p>
        </>
      ) : (
        <form onSubmit={(event) => {
          event.preventDefault();
          if (told) void make.run(path, call());
          else {
            make.forget();
            void tell.run(`${path}?dry_run=true`, call());
          }
        }}>
          <p>Of every one that matches {inWords(filter)}. First it is told how many that are; nothing changes by that.</p>
          <Why reason={reason} set={(reason) => {
            setReason(reason);
            setTold(null);
          }} problem={problem} />
          {told && (
            <div class="note" role="status">
              <p><strong>{count(told.matched)}{told.more ? ' or more' : ''} match; {count(told.possible)} would be decided{told.impossible > 0 ? `, ${count(told.impossible)} cannot be` : ''}.</strong></p>
              {told.sample.length > 0 && <p class="small mono">{told.sample.map(String).join(', ')}{told.possible > told.sample.length && ' …'}</p>}
              {told.impossibleSample.map((one) => <p class="small" key={`${one.key}${one.deadLetterId}`}><span class="mono">{one.key ?? one.deadLetterId}</span>: {one.detail}</p>)}
            </div>
          )}
          {problem && <Failure problem={problem}><Errors problem={problem} /></Failure>}
          <p class="tools">
            {told ? <button type="submit" class="danger" aria-disabled={make.busy || told.possible === 0}>{make.busy ? 'Deciding …' : `${verb} ${count(told.possible)}`}</button>
              : <button type="submit" class="primary" aria-disabled={tell.busy}>{tell.busy ? 'Counting …' : 'Tell how many'}</button>}
            <CopyCurl path={told ? path : `${path}?dry_run=true`} call={call} />
          </p>
        </form>
      )}
    </Dialog>
  );
}
