// Deleting a stream: what goes and what stays is told, before and after.
import { useRef, useState } from 'preact/hooks';
import { useOnce } from '../operations/decide';
import { go, leaving, to } from '../router';
import { CopyCurl, Dialog, Failure } from '../widgets';
import type { Stream } from './model';

/** `ask(false)`: it is gone or about to be, and nobody has to look for it. */
export function Delete({ stream, close, ask }: { stream: Stream; close: () => void; ask: (on: boolean) => void }) {
  const [topic, setTopic] = useState(false);
  const [typed, setTyped] = useState('');
  const isGone = useRef(false);
  const [done, setDone] = useState<{ message: string; leaves: string[] } | null>(null);
  const { run, busy, problem } = useOnce<{ message: string; leaves: string[] }>((told) => {
    isGone.current = true;
    setDone(told);
  });
  const remove = async () => {
    ask(false);
    await run(path, { method: 'DELETE' });
    if (!isGone.current) ask(true);
  };
  const path = `${stream.href}${topic ? '?deleteTopic=true' : ''}`;
  const leave = () => {
    leaving.ask = null; // of a stream that is gone nothing is to be saved
    go(to(['streams']));
  };
  if (done) {
    return (
      <Dialog title={`Delete ${stream.name}`} close={leave}>
        <p role="status"><strong>{done.message}.</strong></p>
        {done.leaves.length > 0 ? <><p>What stays:</p><ul>{done.leaves.map((one) => <li key={one}>{one}</li>)}</ul></> : <p>Nothing of it stays.</p>}
        <p><button type="button" class="primary" onClick={leave}>To the streams</button></p>
      </Dialog>
    );
  }
  return (
    <Dialog title={`Delete ${stream.name}`} close={close}>
      <form onSubmit={(event) => {
        event.preventDefault();
        if (typed === stream.name && !busy) void remove();
      }}>
        <p>What runs of it on {stream.engine} is ended, and its objects there are removed with their state. Its revisions go too.
          Its topic <code>{stream.outputTopic}</code> {topic ? <strong>is deleted with all its records.</strong> : 'stays with its records.'}</p>
        <label class="check"><input type="checkbox" checked={topic} onChange={(event) => setTopic(event.currentTarget.checked)} /><span>Delete the topic too</span></label>
        <label class="field"><span>Type its name to confirm: {stream.name}</span><input value={typed} autocomplete="off" onInput={(event) => setTyped(event.currentTarget.value)} /></label>
        {problem && <Failure problem={problem} />}
        <p class="tools">
          <button type="submit" class="danger" aria-disabled={busy || typed !== stream.name}>{busy ? 'Deleting …' : 'Delete'}</button>
          <CopyCurl path={path} call={{ method: 'DELETE' }} what="the deletion" />
        </p>
      </form>
    </Dialog>
  );
}
