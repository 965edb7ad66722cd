// Queries that are kept under a name, in this browser. Their text goes into the address as any other, so a link to one is for everybody.
import { useState } from 'preact/hooks';
import { Dialog, Empty, Table } from '../widgets';
import { forget, nameOf, save, saved, type Tab } from './model';

export function SavedQueries({ tab, engine }: { tab: Tab; engine: string }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <button type="button" class="quiet" onClick={() => setOpen(true)}>Saved{saved.value.length > 0 && ` (${saved.value.length})`} …</button>
      {open && <All tab={tab} engine={engine} close={() => setOpen(false)} />}
    </>
  );
}

function All({ tab, engine, close }: { tab: Tab; engine: string; close: () => void }) {
  const text = tab.text.value;
  const known = saved.value.find((query) => query.text === text);
  const [name, setName] = useState(known?.name ?? (text.trim() ? nameOf(text) : ''));
  const [told, setTold] = useState('');
  const [trouble, setTrouble] = useState('');
  const exists = saved.value.some((query) => query.name === name.trim() && query.text !== text);
  const tell = (problem: string, word: string) => {
    setTrouble(problem);
    setTold(problem ? '' : word);
  };
  return (
    <Dialog title="Saved queries" close={close} wide>
      {text.trim() !== '' && (
        <form onSubmit={(event) => {
          event.preventDefault();
          tell(save({ name: name.trim(), text, engine, fromBeginning: tab.fromBeginning.value, at: Date.now() }), `“${name.trim()}” is saved in this browser.`);
        }}>
          <label class="field"><span>Name of the query that stands in the editor</span><input required maxLength={120} value={name} onInput={(event) => setName(event.currentTarget.value)} /></label>
          <p class="tools">
            <button type="submit" class="primary" aria-disabled={name.trim() === ''}>{exists ? 'Save in its place' : 'Save'}</button>
            <span class="small muted" role="status">{told}</span>
          </p>
          {trouble && <p class="error" role="alert">{trouble}</p>}
        </form>
      )}
      {saved.value.length === 0 ? <Empty>No query is saved in this browser yet.</Empty> : (
        <Table label="Saved queries">
          <thead><tr><th scope="col">Name</th><th scope="col">SQL</th><th scope="col">Engine</th><th scope="col">Forget</th></tr></thead>
          <tbody>
            {saved.value.map((query) => (
              <tr key={query.name}>
                <td><button type="button" class="quiet code" onClick={() => {
                  tab.text.value = query.text;
                  tab.engine.value = query.engine;
                  tab.fromBeginning.value = query.fromBeginning;
                  close();
                }}>{query.name}</button></td>
                <td class="mono small wide">{query.text.replaceAll(/\s+/g, ' ').slice(0, 160)}</td>
                <td>{query.engine}</td>
                <td><button type="button" class="quiet" aria-label={`Forget ${query.name}`} onClick={() => tell(forget(query.name), `“${query.name}” is forgotten.`)}>Forget</button></td>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
    </Dialog>
  );
}
