// Refused records: all of them, and one with its bytes and with what can be done, a corrected payload beside the original.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { useAsk } from '../api';
import { faithful, pretty } from '../json';
import { kept } from '../kept';
import { Record } from '../record';
import { change, narrow, place, to } from '../router';
import { Time } from '../time';
import { Act, Between, bytes, Copy, CopyCurl, count, Dialog, Empty, Failure, Pager, Shown, Table, Typed, Value } from '../widgets';
import { useAges } from './ages';
import { actor, Decide, DecideMany, Errors, useOnce, Why } from './decide';
import { Decided } from './decisions';
import { Status, textOf } from './held';
import { words, type Letter, type LetterDetail, type NextStep } from './model';

const STATUSES = ['open', 'deciding', 'skipped', 'replaced', 'redriven', 'refused', 'all'];
const REASONS = ['schema_violation', 'invalid_json', 'invalid_avro', 'schema_not_found', 'unsupported_schema', 'unsupported_version', 'missing_sequence', 'invalid_sequence', 'missing_type', 'type_mismatch', 'key_mismatch', 'null_key', 'invalid_key', 'null_payload', 'record_too_large', 'nesting_too_deep', 'unrepresentable', 'currency_mismatch', 'sequence_conflict', 'event_id_reused', 'sequence_reused'];

export function LetterList({ changed }: { changed: () => void }) {
  const { query, hash } = place.value;
  const [status, reason, topic, key] = [query.get('status') ?? 'open', query.get('reason') ?? '', query.get('topic') ?? '', hash.get('key') ?? ''];
  const { at, ...ages } = useAges();
  const asked = new URLSearchParams({ status, pageSize: '50' });
  if (reason) asked.set('reason', reason);
  if (topic) asked.set('topic', topic);
  if (key) asked.set('key', key);
  for (const [name, age] of Object.entries(ages)) asked.set(name, age);
  const cursor = query.get('cursor');
  if (cursor) asked.set('cursor', cursor);
  const path = `/ops/dead-letters?${asked}`;
  const list = useAsk<{ items: Letter[] }>(path, { every: 3000 });
  const topics = useAsk<{ items: { topic: string; letters: number }[]; partial: boolean }>(`/ops/dead-letters/topics?status=${status}`, { every: 15_000 });
  const [many, setMany] = useState<'skip' | 'redrive' | null>(null);
  const filter = { status: [status], ...(reason ? { reason: [reason] } : {}), ...(topic ? { topic } : {}), ...(key ? { key } : {}) };
  const nothing = list.data?.items.length === 0 ? 'No letter matches.' : '';
  return (
    <>
      <div class="filters">
        <label><span>Status</span>
          <select value={status} onChange={(event) => narrow({ status: event.currentTarget.value === 'open' ? null : event.currentTarget.value })}>
            {STATUSES.map((one) => <option key={one}>{one}</option>)}
          </select>
        </label>
        <label><span>Refused for</span>
          <select value={reason} onChange={(event) => narrow({ reason: event.currentTarget.value })}>
            <option value="">any reason</option>
            {[...new Set([...REASONS, ...(list.data?.items.map((letter) => letter.reason) ?? []), ...(reason ? [reason] : [])])].map((one) => <option key={one} value={one}>{words(one)}</option>)}
          </select>
        </label>
        <label><span>Topic</span>
          <select value={topic} onChange={(event) => narrow({ topic: event.currentTarget.value })}>
            <option value="">any topic</option>
            {topics.data?.items.map((one) => <option key={one.topic} value={one.topic}>{one.topic}, {count(one.letters)}{topics.data?.partial && '+'}</option>)}
            {topic && !topics.data?.items.some((one) => one.topic === topic) && <option value={topic}>{topic}</option>}
          </select>
        </label>
        <Between label="Refused" from={query.get('from') ?? ''} to={query.get('to') ?? ''} />
        <Typed label="Key" data-filter value={key} placeholder="order-1" set={(key) => narrow({}, { key })} />
        <div class="tools">
          <Act right="decide" why={nothing} onClick={() => setMany('redrive')}>Redrive all that match …</Act>
          <Act right="decide" why={nothing} onClick={() => setMany('skip')}>Skip all that match …</Act>
          <CopyCurl path={path} what="dead letters" />
        </div>
      </div>
      <Shown of={list} what="dead letters">
        {({ items }) => items.length === 0 ? <Empty>{status === 'open' && !reason && !topic && !key && at === null ? 'No record is refused: nothing waits for you.' : 'No dead letter matches.'}</Empty> : <Letters items={items} />}
      </Shown>
      <Pager asked={list} go={(cursor) => change({ cursor, at: cursor && at }, { replace: false })} />
      {many && <DecideMany title={many === 'skip' ? 'Skip dead letters' : 'Redrive dead letters'} path={`/ops/dead-letters/${many}`} filter={filter} what="letters" verb={many === 'skip' ? 'Skip' : 'Redrive'} close={() => setMany(null)} done={() => {
        list.again();
        changed();
      }} />}
    </>
  );
}

export function Letters({ items }: { items: Letter[] }) {
  const several = new Set(items.map(({ topic }) => topic)).size > 1;
  return (
    <Table label="Dead letters">
      <thead><tr><th scope="col">Letter</th><th scope="col">Status</th><th scope="col">Key</th><th scope="col" class="num">Number</th><th scope="col">Why it was refused</th><th scope="col">Refused</th><th scope="col" class="num">Partition/offset</th><th scope="col" class="num">Bytes</th></tr></thead>
      <tbody>
        {items.map((letter) => (
          <tr key={letter.id}>
            <td><a href={to(['operations', 'letters', String(letter.id)])}>{letter.id}</a></td>
            <td><Status of={letter.status} /></td>
            <td class="mono">{letter.key === null ? <Value of={null} /> : <a href={to(['orders', letter.key])}>{letter.key}</a>}</td>
            <td class="num">{letter.sequence ?? <Value of={null} />}</td>
            <td class="wide"><strong>{words(letter.reason)}</strong>: {letter.error}</td>
            <td><Time at={letter.createdAt} /></td>
            <td class="num">{several && <span class="mono">{letter.topic}/</span>}{letter.partition}/{letter.offset}</td>
            <td class="num">{bytes(letter.payloadBytes)}</td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

export function LetterView({ id, changed }: { id: string; changed: () => void }) {
  const path = `/ops/dead-letters/${encodeURIComponent(id)}`;
  const asked = useAsk<LetterDetail>(path, { every: 3000 });
  const [shown, setShown] = useState<'value' | 'bytes'>('value');
  return (
    <>
      <div class="head">
        <h2>Dead letter {id}</h2>
        {asked.data && <Status of={asked.data.status} />}
        <span>{asked.data?.key && <><a href={to(['orders', asked.data.key])}>The order</a> · </>}<a href={to(['operations', 'letters'])}>All dead letters</a></span>
        <div class="tools"><CopyCurl path={path} what="this dead letter" /></div>
      </div>
      <Shown of={asked} what="the dead letter">
        {(letter) => {
          const exact = asked.answer ? faithful<LetterDetail>(asked.answer.text) : letter;
          return (
            <>
              <div class="note"><p><strong>{words(letter.reason)}: {letter.error}</strong></p>{letter.refusedBecause && <p>The decision was refused: {letter.refusedBecause}</p>}</div>
              <dl class="facts">
                <div><dt>Key</dt><dd class="mono"><Value of={letter.key} /></dd></div>
                <div><dt>Number</dt><dd><Value of={letter.sequence} /></dd></div>
                <div><dt>Record</dt><dd class="mono">{letter.topic}/{letter.partition}/{letter.offset}</dd></div>
                <div><dt>Record time</dt><dd><Time at={letter.recordTime} /></dd></div>
                <div><dt>Refused</dt><dd><Time at={letter.createdAt} /></dd></div>
                <div><dt>On the dead-letter topic</dt><dd><Time at={letter.publishedAt} /></dd></div>
              </dl>
              <h3>What can be done</h3>
              {letter.next.some((step) => step.method === 'POST') ? <Steps steps={letter.next} letter={exact} done={() => {
                asked.again();
                changed();
              }} /> : <Empty>Nothing more: it is {words(letter.status)}.</Empty>}
              {letter.decision && (<><h3>What was decided</h3><Decided items={[letter.decision]} /></>)}
              <h3>The record</h3>
              <div class="tools">
                <button type="button" class="quiet" aria-pressed={shown === 'value'} onClick={() => setShown('value')}>Value</button>
                <button type="button" class="quiet" aria-pressed={shown === 'bytes'} onClick={() => setShown('bytes')}>Bytes</button>
                <Copy label="Copy all as JSON" text={() => asked.answer?.text ?? ''} />
                {letter.payload?.truncated && <span class="muted small">The first bytes of {bytes(letter.payload.bytes)}.</span>}
              </div>
              {letter.payload === null ? <Empty>The record has no value.</Empty>
                : shown === 'bytes' ? <pre tabIndex={0} aria-label="Bytes of the record">{hex(letter.payload.base64 ?? '')}</pre>
                  : <Record text={textOf(exact.payload)} label="value of the record" />}
              <h3>Headers</h3>
              {letter.headers.length === 0 ? <Empty>It has no header.</Empty> : (
                <Table label="Headers"><thead><tr><th scope="col">Name</th><th scope="col">Value</th></tr></thead><tbody>
                  {letter.headers.map((header, index) => <tr key={index}><td class="mono">{header.name}</td><td class="mono wide">{header.text === undefined ? header.base64 === undefined ? <Value of={null} /> : `base64 ${header.base64}` : <Value of={header.text} />}</td></tr>)}
                </tbody></Table>
              )}
            </>
          );
        }}
      </Shown>
    </>
  );
}

/** What can be done next, each with its effect. */
export function Steps({ steps, letter, done, skipHeld }: { steps: NextStep[]; letter?: Letter; done: () => void; skipHeld?: (step: NextStep) => void }) {
  const [open, setOpen] = useState<NextStep | null>(null);
  const [made, setMade] = useState('');
  const calls = steps.filter((step) => step.method === 'POST');
  const finish = (data: { detail?: string }) => {
    setMade(data.detail ?? 'It is decided.');
    done();
  };
  return (
    <>
      <ul class="steps">
        {calls.map((step) => (
          <li key={step.href}>
            <Act right="decide" class={step.action === 'replace' ? 'primary' : ''} onClick={() => (step.href.startsWith('/ops/held/') && skipHeld ? skipHeld(step) : setOpen(step))}>
              {step.action === 'replace' ? 'Replace …' : step.action === 'redrive' ? 'Redrive …' : 'Skip …'}
            </Act>{' '}
            <span class="muted">{step.effect}</span>
          </li>
        ))}
      </ul>
      {made && <p class="note good" role="status">{made} <a href={to(['operations', 'decisions'], {}, { key: letter?.key })}>Who decided what</a></p>}
      {open?.action === 'replace' && <Replace step={open} letter={letter} close={() => setOpen(null)} done={finish} />}
      {open && open.action !== 'replace' && (
        <Decide<{ detail?: string }> title={open.action === 'redrive' ? 'Redrive the record' : 'Skip the record'} path={open.href} verb={open.action === 'redrive' ? 'Redrive' : 'Skip'} danger={open.action === 'skip'}
          close={() => setOpen(null)} done={finish} effect={<p>The order {open.effect}.</p>} />
      )}
    </>
  );
}

/** A corrected payload, written beside the original. */
function Replace({ step, letter, close, done }: { step: NextStep; letter?: Letter; close: () => void; done: (data: { detail?: string }) => void }) {
  const id = /\/ops\/dead-letters\/(\d+)\//.exec(step.href)?.[1];
  const asked = useAsk<LetterDetail>(id ? `/ops/dead-letters/${id}` : null);
  const original = asked.answer ? textOf(faithful<LetterDetail>(asked.answer.text).payload) : null;
  // What was typed outlives a reload and a closed dialog.
  const draft = useMemo(() => kept(`draft.letter.${id}`, '', window.sessionStorage), [id]);
  const [text, setText] = useState<string | null>(draft.peek() || null);
  useEffect(() => void (draft.value = text !== null && text !== original ? text : ''), [text]);
  const [reason, setReason] = useState('');
  const [key, setKey] = useState('');
  const [sequence, setSequence] = useState('');
  const [sent, setSent] = useState('');
  const { run, busy, problem: refusal } = useOnce<{ detail?: string }>((data) => {
    draft.value = '';
    close();
    done(data);
  });
  const now = text ?? original ?? '';
  let fault = '';
  try {
    JSON.parse(now);
  } catch (error) {
    fault = error instanceof Error ? error.message : String(error);
  }
  // What was refused is told as long as it stands there.
  const problem = sent === now + reason ? refusal : null;
  const [needsKey, needsSequence] = [step.body?.key !== undefined, step.body?.sequence !== undefined];
  // As text: what is sent is what stands here, to the digit.
  const call = { method: 'POST', body: { payload: now, reason, ...actor(), ...(needsKey && key ? { key } : {}), ...(needsSequence && sequence ? { sequence: Number(sequence) } : {}) } };
  return (
    <Dialog title={`Replace dead letter ${id ?? ''}`} close={close} wide>
      <form onSubmit={(event) => {
        event.preventDefault();
        if (fault) return;
        setSent(now + reason);
        void run(step.href, call);
      }}>
        {(letter ?? asked.data) && <p>Refused because <strong>{(letter ?? asked.data)!.error}</strong></p>}
        <div class="beside">
          <div>
            <h3>As it came</h3>
            {original === null ? <p class="waiting">{asked.error ? asked.error.detail : 'Loading …'}</p> : <pre tabIndex={0} aria-label="The original">{original}</pre>}
          </div>
          <div>
            <h3 id="replacement">As it should be</h3>
            <textarea class="code" aria-labelledby="replacement" spellcheck={false} value={now} onInput={(event) => setText(event.currentTarget.value)} aria-invalid={Boolean(fault)} />
            {text !== null && text !== original && <p><button type="button" class="quiet" onClick={() => setText(original)}>Begin anew with the original</button></p>}
            <p class="error" role="status">{fault && original !== null ? `Not JSON yet: ${fault}` : ''}</p>
            {original !== null && text !== null && text !== original && <Changes before={original} after={text} />}
          </div>
        </div>
        {needsKey && <label class="field"><span>Key that it belongs to</span><input required value={key} onInput={(event) => setKey(event.currentTarget.value)} /></label>}
        {needsSequence && <label class="field"><span>Number of the event</span><input required inputMode="numeric" pattern="[0-9]+" value={sequence} onInput={(event) => setSequence(event.currentTarget.value)} /></label>}
        <Why reason={reason} set={setReason} problem={problem} label="What was wrong with it" />
        {problem && <Failure problem={problem}><Errors problem={problem} /></Failure>}
        <p class="tools">
          <button type="submit" class="primary" aria-disabled={busy || Boolean(fault)}>{busy ? 'Checking …' : 'Replace'}</button>
          <CopyCurl path={step.href} call={call} />
          <span class="muted small">It is checked against the contract before it is taken.</span>
        </p>
      </form>
    </Dialog>
  );
}

/** The lines that differ. */
function Changes({ before, after }: { before: string; after: string }) {
  const [old, now] = [before.split('\n'), pretty(after).split('\n')];
  const [gone, come] = [old.filter((line) => !now.includes(line)), now.filter((line) => !old.includes(line))];
  if (gone.length + come.length === 0) return null;
  return <pre class="small" tabIndex={0} aria-label="What you have changed">{[...gone.map((line) => `- ${line.trim()}`), ...come.map((line) => `+ ${line.trim()}`)].join('\n')}</pre>;
}

/** Bytes as an offset, hexadecimal, and what is readable. */
function hex(base64: string): string {
  const all = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const lines: string[] = [];
  for (let at = 0; at < all.length; at += 16) {
    const some = [...all.subarray(at, at + 16)];
    const codes = some.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const letters = some.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '·')).join('');
    lines.push(`${at.toString(16).padStart(6, '0')}  ${codes.padEnd(47)}  ${letters}`);
  }
  return lines.join('\n');
}
