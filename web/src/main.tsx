// Begins: what the browser has to know is looked at once, then the shell shows the page of the address.
import { render } from 'preact';
import { look, tellTabs } from './session';
import { Shell } from './shell';
import './theme';

// Its address is relative to that of the page, which changes.
const icon = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
if (icon) icon.href = icon.href;

const host = document.getElementById('app');
if (host) {
  void look().finally(() => {
    tellTabs();
    host.textContent = '';
    render(<Shell />, host);
  });
}
