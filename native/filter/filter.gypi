{
  'targets': [
  ],
}
