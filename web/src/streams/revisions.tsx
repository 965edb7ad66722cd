// The texts of a stream, and what is different between two of them.
import { useAsk } from '../api';
import { change, place } from '../router';
import { Time } from '../time';
import { CopyCurl, Empty, Pager, Shown, Table } from '../widgets';
import type { Stream } from './model';

interface Revision {
  revision: number;
  sqlScript: string;
  author: string;
  createdAt: string;
}

export function Revisions({ stream }: { stream: Stream }) {
  const path = `${stream.href}/revisions`;
  const cursor = place.value.query.get('cursor');
  const list = useAsk<{ items: Revision[] }>(cursor ? `${path}?cursor=${cursor}` : path);
  const pair = place.value.query.get('diff') ?? (stream.revision > 1 ? `${stream.revision - 1}..${stream.revision}` : '');
  const [from, until] = pair.split('..').map(Number);
  const choose = (from: number, until: number) => change({ diff: `${from}..${until}` });
  return (
    <>
      <div class="tools"><CopyCurl path={path} what="revisions" /></div>
      <Shown of={list} what="revisions">
        {({ items }) => (
          <>
            <Table label="Revisions of the text">
              <thead><tr><th scope="col" class="num">Revision</th><th scope="col">State</th><th scope="col">Who</th><th scope="col">When</th><th scope="col">SQL</th><th scope="col">Compare</th></tr></thead>
              <tbody>
                {items.map(({ revision, sqlScript, author, createdAt }) => (
                  <tr key={revision}>
                    <td class="num">{revision}</td>
                    <td>{revision === stream.deployedRevision ? <span class="flag live-flag">deployed</span> : revision === stream.failedRevision ? <span class="flag bad">failed</span> : ''}</td>
                    <td>{author}</td><td><Time at={createdAt} /></td><td class="mono wide">{sqlScript}</td>
                    <td>{revision > 1 && <button type="button" class="quiet" aria-pressed={until === revision && from === revision - 1} onClick={() => choose(revision - 1, revision)}>with the one before</button>}</td>
                  </tr>
                ))}
              </tbody>
            </Table>
            <Pager asked={list} go={(cursor) => change({ cursor }, { replace: false })} />
            {stream.revision < 2 ? <Empty>There is one revision so far, and nothing to compare it with.</Empty> : (
              <>
                <div class="filters">
                  {([['From revision', from, (value: number) => choose(value, until!)], ['to revision', until, (value: number) => choose(from!, value)]] as const).map(([label, value, set]) => (
                    <label key={label}><span>{label}</span>
                      <select value={value} onChange={(event) => set(Number(event.currentTarget.value))}>{numbers(items, value).map((revision) => <option key={revision} value={revision}>{revision}</option>)}</select>
                    </label>
                  ))}
                </div>
                <Difference path={`${path}?diff=${pair}`} />
              </>
            )}
          </>
        )}
      </Shown>
    </>
  );
}

/** Those of the page, and the one that is chosen, which may stand on another. */
function numbers(items: Revision[], chosen: number | undefined): number[] {
  const shown = items.map(({ revision }) => revision);
  return chosen && !shown.includes(chosen) ? [...shown, chosen].sort((one, other) => other - one) : shown;
}

function Difference({ path }: { path: string }) {
  const found = useAsk<{ diff: string }>(path);
  return (
    <Shown of={found} what="what differs">
      {({ diff }) => diff === '' ? <Empty>They are the same.</Empty> : (
        <pre class="diff" tabIndex={0} aria-label="What differs">
          {diff.replace(/\n$/, '').split('\n').map((line, index) => <span key={index} class={/^(---|\+\+\+|@@|\\)/.test(line) ? 'muted' : line.startsWith('+') ? 'added' : line.startsWith('-') ? 'removed' : ''}>{line}{'\n'}</span>)}
        </pre>
      )}
    </Shown>
  );
}
