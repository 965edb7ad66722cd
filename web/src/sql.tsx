// SQL in a page: the editor, loaded when it is first needed, and what is wrong with the text below it.
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Editor, Fault, Known } from './editor';

interface Props {
  text: string;
  set: (text: string) => void;
  label?: string;
  hint?: string;
  sources?: Known[] | undefined;
  faults?: Fault[];
  frozen?: boolean;
  run?: () => void;
}

export function Sql({ text, set, label = 'SQL', hint = 'SELECT …', sources, faults = [], frozen = false, run }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const made = useRef<Editor | null>(null);
  const latest = useRef({ set, run });
  latest.current = { set, run };
  // What the editor has told and the page has not drawn yet: an older text that comes back late is no wish for it.
  const told = useRef<string[]>([]);
  const [failed, setFailed] = useState(false);
  const [ready, setReady] = useState(false);
  useEffect(() => {
    let gone = false;
    void import('./editor').then(({ editor }) => {
      if (gone || !host.current) return;
      made.current = editor(host.current, { text, label, hint, changed: (text) => {
        told.current.push(text);
        latest.current.set(text);
      }, run: () => latest.current.run?.() });
      setReady(true);
    }, () => setFailed(true));
    return () => {
      gone = true;
      made.current?.close();
      made.current = null;
    };
  }, []);
  useEffect(() => {
    const at = told.current.lastIndexOf(text);
    if (at >= 0) told.current.splice(0, at + 1);
    else made.current?.set(text);
  }, [text, ready]);
  useEffect(() => sources && made.current?.know(sources), [sources, ready]);
  useEffect(() => made.current?.mark(faults), [faults, ready]);
  useEffect(() => made.current?.freeze(frozen), [frozen, ready]);
  // Without the editor there is still a field.
  if (failed) {
    return <textarea class="code" aria-label={label} value={text} readOnly={frozen} onInput={(event) => set(event.currentTarget.value)} />;
  }
  return (
    <>
      <div class={frozen ? 'sql frozen' : 'sql'} ref={host} />
      <Faults faults={faults} goTo={(line, column) => made.current?.goTo(line, column)} />
    </>
  );
}

/** What is wrong, each with its place, which leads there. */
export function Faults({ faults, goTo }: { faults: Fault[]; goTo?: (line: number, column: number) => void }) {
  if (faults.length === 0) return null;
  return (
    <div role="alert"><ul class="faults">
      {faults.map((fault) => (
        <li key={`${fault.code}${fault.line}${fault.column}`}>
          {fault.line !== null && (
            <button type="button" class="quiet" onClick={() => goTo?.(fault.line!, fault.column ?? 1)}>line {fault.line}, column {fault.column ?? 1}</button>
          )}
          <span>{fault.message}</span> <code class="muted">{fault.code}</code>
        </li>
      ))}
    </ul></div>
  );
}

export type { Fault, Known };
