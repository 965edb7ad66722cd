// Operations: the state in words, and what waits for somebody.
import { useAsk } from '../api';
import { Audit } from '../operations/audit';
import { Builds, OperationView } from '../operations/builds';
import { Decisions } from '../operations/decisions';
import { Engines } from '../operations/engines';
import { HeldDetail, HeldList } from '../operations/held';
import { LetterList, LetterView } from '../operations/letters';
import { Partitions } from '../operations/partitions';
import { Queries } from '../operations/queries';
import { atLeast, MOST_COUNTED, Top, useHealth, type Waiting } from '../operations/state';
import type { PageProps } from '../pages';
import { to } from '../router';
import { forbidden, may } from '../session';
import { Empty } from '../widgets';

const TABS: [string, string][] = [['', 'Partitions'], ['held', 'Held'], ['letters', 'Dead letters'], ['decisions', 'Decisions'], ['builds', 'Builds'], ['queries', 'Running queries'], ['engines', 'Engines'], ['audit', 'Audit']];

export default function Operations({ named }: PageProps) {
  const looks = may('operate');
  const health = useHealth(looks);
  const held = useAsk<Waiting>(looks ? `/ops/held?pageSize=${MOST_COUNTED}` : null, { every: 4000 });
  const letters = useAsk<Waiting>(looks ? `/ops/dead-letters?pageSize=${MOST_COUNTED}` : null, { every: 4000 });
  const tab = named.tab ?? '';
  const changed = () => {
    held.again();
    letters.again();
  };
  const counts: { [tab: string]: number | undefined } = { held: held.data?.items.length, letters: letters.data?.items.length };
  const shows = looks || (tab === 'queries' && may('runStreams')) || (tab === 'engines' && may('read'));
  return (
    <section>
      {looks ? <Top health={health} held={held} letters={letters} brief={tab !== ''} /> : <h1>Operations</h1>}
      <nav class="tabs" aria-label="Parts of operations">
        {TABS.map(([name, title]) => (
          <a key={name} href={to(name ? ['operations', name] : ['operations'])} aria-current={name === tab ? 'page' : undefined}>
            {title}{counts[name] !== undefined && <span class="num">{atLeast(counts[name])}</span>}
          </a>
        ))}
      </nav>
      <div data-begin tabIndex={-1} class="part-of-page">{shows ? <Tab tab={tab} id={named.id} health={health} changed={changed} /> : <Empty>{forbidden('operate')}</Empty>}</div>
    </section>
  );
}

function Tab({ tab, id, health, changed }: { tab: string; id: string | undefined; health: ReturnType<typeof useHealth>; changed: () => void }) {
  switch (tab) {
    case '': return <Partitions health={health} />;
    case 'held': return id === undefined ? <HeldList changed={changed} /> : <HeldDetail key={id} id={id} changed={changed} />;
    case 'letters': return id === undefined ? <LetterList changed={changed} /> : <LetterView key={id} id={id} changed={changed} />;
    case 'decisions': return <Decisions />;
    case 'builds': return id === undefined ? <Builds changed={changed} /> : <OperationView key={id} id={id} changed={changed} />;
    case 'queries': return <Queries />;
    case 'engines': return <Engines />;
    case 'audit': return <Audit />;
    default: return <Empty>There is no such part. <a href={to(['operations'])}>To the partitions</a></Empty>;
  }
}
