// Who reads what a stream writes: consumer groups, and how far behind they are.
import { useAsk } from '../api';
import { to } from '../router';
import { Time } from '../time';
import { CopyCurl, count, Empty, Shown, State, Table } from '../widgets';

interface Readers {
  topic: string;
  items: { group: string; state: string; members: number | null; lag: number | null; trouble: string | null }[];
  notAsked: number;
  observedAt: string;
  trouble: string | null;
}

export function Consumers({ id }: { id: string }) {
  const path = `/api/streams/${id}/consumers`;
  const asked = useAsk<Readers>(path, { every: 10_000 });
  return (
    <>
      <div class="tools"><CopyCurl path={path} what="consumers" /></div>
      <Shown of={asked} what="consumers">
        {({ topic, items, notAsked, observedAt, trouble }) => trouble !== null ? (
          <div class="note"><p>Who reads <code>{topic}</code> is not known: {trouble}.</p></div>
        ) : (
          <>
            {items.length === 0 ? <Empty>No consumer group reads <a class="mono" href={to(['topics', topic, 'live'])}>{topic}</a>, or has a position in it. Who only watches here is none.</Empty> : (
              <Table label="Consumers of the stream">
                <thead><tr><th scope="col">Group</th><th scope="col">State</th><th scope="col" class="num">Members that read it</th><th scope="col" class="num">Not read yet</th></tr></thead>
                <tbody>
                  {items.map(({ group, state, members, lag, trouble }) => (
                    <tr key={group}>
                      <td class="mono">{group}</td>
                      <td><State kind={state === 'Stable' ? 'good' : state === 'Empty' ? 'idle' : 'wait'}>{state}</State></td>
                      <td class="num">{members ?? <span class="nothing">not told</span>}</td>
                      <td class="num">{lag === null ? <span class="nothing">{trouble ?? 'no position yet'}</span> : count(lag)}</td>
                    </tr>
                  ))}
                </tbody>
              </Table>
            )}
            <p class="small muted">As the brokers told <Time at={observedAt} short />.{notAsked > 0 && ` ${count(notAsked)} more groups were not asked, or do not tell: they may read it too.`}</p>
          </>
        )}
      </Shown>
    </>
  );
}
