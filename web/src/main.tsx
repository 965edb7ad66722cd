// Begins: what the browser has to know is looked at once, then the shell shows the page of the address.
import { render } from 'preact';
import { look } from './session';
import { Shell } from './shell';
import './theme';

const host = document.getElementById('app');
if (host) {
  void look().finally(() => {
    host.textContent = '';
    render(<Shell />, host);
  });
}
