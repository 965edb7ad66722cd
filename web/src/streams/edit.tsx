// Another text for a stream: judged while it is written, and what would be lost is told before anything happens.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { ask, Problem, useAsk, type Call } from '../api';
import { Errors, useOnce } from '../operations/decide';
import type { Source } from '../query/model';
import { leaving, to } from '../router';
import { Sql } from '../sql';
import { useValidation, type Validation } from '../validate';
import { Act, CopyCurl, Failure } from '../widgets';
import { Judged } from './create';
import type { Plan, Stream } from './model';

const WORDS: { [effect in Plan['effect']]: string } = {
  nothing: 'Nothing would change.',
  starts: 'It is written down, and begins with the next deployment.',
  keepsState: 'The new text takes the place of the old one and keeps its state.',
  restartsFromBeginning: 'The new text begins anew: what was counted and joined so far is lost, and the topic gets rows a second time.',
  refused: 'It would be refused.',
};

export function Edit({ stream, etag, close, done }: { stream: Stream; etag: string | null; close: () => void; done: () => void }) {
  const [name, setName] = useState(stream.name);
  const form = useRef<HTMLFormElement>(null);
  // As dialogs do: it begins at the first field.
  useLayoutEffect(() => form.current?.querySelector('input')?.focus(), []);
  const [text, setText] = useState(stream.sqlScript);
  // What somebody has changed since does not move the ground under who edits.
  const [first] = useState({ etag, name: stream.name, text: stream.sqlScript });
  const [accepts, setAccepts] = useState(false);
  const [plan, setPlan] = useState<{ of: string; plan?: Plan; problem?: Problem } | null>(null);
  const catalog = useAsk<{ items: Source[] }>('/api/catalog');
  const sources = catalog.data?.items.filter(({ engines }) => engines.includes(stream.engine));
  const isChanged = text !== first.text || name.trim() !== first.name;
  const checked = useValidation('persistent', text, stream.engine, text !== first.text);
  useEffect(() => {
    leaving.ask = isChanged ? () => window.confirm('The change is not saved. Leave all the same?') : null;
    return () => void (leaving.ask = null);
  }, [isChanged]);
  useEffect(() => {
    if (!checked.found?.valid || text === first.text) return setPlan(null);
    const abort = new AbortController();
    ask<Plan>(`${stream.href}/plan`, { method: 'POST', body: { sqlScript: text } }, abort.signal).then(
      ({ data }) => setPlan({ of: text, plan: data }),
      (error: unknown) => abort.signal.aborted || setPlan({ of: text, problem: error as Problem }),
    );
    return () => abort.abort();
  }, [checked.found]);
  const { run, busy, problem } = useOnce<Stream>(() => {
    leaving.ask = null;
    done();
  });
  const loses = plan?.of === text && plan.plan?.effect === 'restartsFromBeginning';
  const body = { ...(name.trim() === first.name ? {} : { name: name.trim() }), ...(text === first.text ? {} : { sqlScript: text }), ...(accepts && loses ? { acceptStateLoss: true } : {}) };
  const call: Call = { method: 'PUT', body, ...(first.etag ? { headers: { 'if-match': first.etag } } : {}) };
  const why = !isChanged ? 'Nothing is changed yet.' : checked.faults.length > 0 ? 'The text cannot run as it is.' : loses && !accepts ? 'Say first that the state may be lost.' : '';
  const faults = (problem?.body.statementErrors as Validation['errors'] | undefined) ?? checked.faults;
  return (
    <form ref={form} class="sheet" onSubmit={(event) => {
      event.preventDefault();
      if (!why) void run(stream.href, call);
    }}>
      <label class="field"><span>Name <span class="muted small">(topic and names in the engine stay)</span></span><input required maxLength={128} value={name} onInput={(event) => setName(event.currentTarget.value)} /></label>
      {problem?.of('name') && <p class="error">{problem.of('name')}</p>}
      <div class="field"><span>Text</span><Sql text={text} set={setText} sources={sources} faults={faults} label="New text of the stream" /></div>
      {text !== first.text && <Judged checked={checked} />}
      {plan?.of === text && plan.problem && <Failure problem={plan.problem} />}
      {plan?.of === text && plan.plan && <PlanView plan={plan.plan} />}
      {loses && <label class="check"><input type="checkbox" checked={accepts} onChange={(event) => setAccepts(event.currentTarget.checked)} /><span>The state may be lost</span></label>}
      {loses && <p class="small">Or keep both: <a href={to(['streams', 'new'], { engine: stream.engine }, { name: `${name.trim()}2`, sql: text })} onClick={() => (leaving.ask = null)}>deploy the new text beside the old one</a>, with a topic of its own, and delete the old one when nobody reads it any more.</p>}
      {problem && (
        <Failure problem={problem}>
          <Errors problem={problem} />
          {problem.code === 'version_changed' && <p>What you have written stays here: copy it, close this, and look at what somebody else has changed.</p>}
        </Failure>
      )}
      <p class="tools">
        <Act right="define" type="submit" class={loses ? 'danger' : 'primary'} why={busy ? 'It is saved.' : why}>{busy ? 'Saving …' : loses ? 'Save and begin anew' : 'Save'}</Act>
        <button type="button" onClick={() => (!isChanged || window.confirm('Throw the change away?')) && close()}>Cancel</button>
        <CopyCurl path={stream.href} call={call} what="the change" />
      </p>
    </form>
  );
}

function sentence(words: string): string {
  return words && `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? '' : '.'}`;
}

export function PlanView({ plan }: { plan: Plan }) {
  const differences = plan.differences.filter((one) => !plan.reason.toLowerCase().includes(one.toLowerCase()));
  return (
    <div class={plan.effect === 'restartsFromBeginning' || plan.effect === 'refused' ? 'note' : 'note good'} role="status" aria-label="What would happen">
      <p><strong>{WORDS[plan.effect]}</strong> {sentence(plan.reason)}</p>
      {differences.length > 0 && <p class="small">What differs: {differences.join(', ')}.</p>}
      {plan.refused.map((one) => <p class="error" key={one.message}>{one.message}</p>)}
      {plan.steps.length > 0 && <ol class="small">{plan.steps.map((step) => <li key={step}>{step}</li>)}</ol>}
    </div>
  );
}
