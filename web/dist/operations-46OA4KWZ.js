import{g as n}from"./chunk-RLH3V6A7.js";function o(){return n("h1",{children:"Operations"})}export{o as default};
